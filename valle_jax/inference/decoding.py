"""Drawing codes for many utterances side by side, each in a slot of its own: the step that all samplers share."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from valle_jax.data.batch import KIND_ACOUSTIC
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params
from valle_jax.model.ar import ARDecoder, hide_text
from valle_jax.model.cache import Cache
from valle_jax.model.transformer import Block


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """B utterances in the making. What happens to one depends on nothing of another.

    Attributes:
      cache: keys and values of the tokens; with guidance of 2B rows, the second half without the text.
      logits: float32 [B, G, V + 1] of the next codes; with guidance [2B, G, V + 1].
      first_position: int32 [B], position of the first frame to draw.
      keys: [B], a random key each.
      min_frames: int32 [B], end of speech is not drawn before.
      max_frames: int32 [B], drawing stops there, with `finished` False.
      codes: int32 [B, M], codebook 1; zero behind each row's length.
      length: int32 [B], frames drawn.
      live: bool [B], whether there is more to draw.
      finished: bool [B], whether the row ended by end of speech.
      log_probability: float32 [B], sum over what was drawn, under the unmodified distribution.
      recent: int32 [B, K], the last codes, -1 where there are fewer.
    """

    cache: Cache
    logits: jax.Array
    first_position: jax.Array
    keys: jax.Array
    min_frames: jax.Array
    max_frames: jax.Array
    codes: jax.Array
    length: jax.Array
    live: jax.Array
    finished: jax.Array
    log_probability: jax.Array
    recent: jax.Array

    @property
    def mean_log_probability(self) -> jax.Array:
        """Float32 [B], over the codes and the end."""
        return self.log_probability / jnp.maximum(self.length + self.finished, 1)


def bind(decoder: Decoder, params: Params) -> ARDecoder:
    """The module of an AR decoder."""
    model = decoder.bind(params)
    assert isinstance(model, ARDecoder)
    return model


def prefill(
    model: ARDecoder,
    batch: dict[str, jax.Array],
    keys_B: jax.Array,
    min_frames_B: jax.Array,
    max_frames_B: jax.Array,
    *,
    sampling: Sampling,
    max_frames: int,
    capacity: int | None = None,
) -> Slots:
    """Slots behind the prefixes of a batch: one segment per row, padded on the right.

    Args:
      model: an AR decoder.
      batch: token int32 [B, T G], kind, segment, position, int32 [B, T]; ends with the last frames of the acoustic
        prompt, or with the token before the first frames where there is no prompt.
      keys_B: one random key per row.
      min_frames_B: int32 [B].
      max_frames_B: int32 [B].
      sampling: the decoding rules.
      max_frames: codes that a slot can hold.
      capacity: tokens that a slot can hold; None: the prefix and what is drawn.
    """
    B = keys_B.shape[0]
    # Acoustic positions are counted on from the prompt's (and a begin-of-audio token's, which holds position 0).
    step = model.config.codes_per_step
    capacity = capacity or batch["segment"].shape[1] + -(-max_frames // step)
    first_position = jnp.max(jnp.where(batch["kind"] == KIND_ACOUSTIC, batch["position"] + step, 0), axis=1)
    if sampling.guided:
        hidden = hide_text(batch)
        batch = {name: jnp.concatenate([batch[name], hidden[name]]) for name in batch}
    logits, cache = model.prefill(batch, capacity)
    return Slots(
        cache=cache,
        logits=logits,
        first_position=first_position,
        keys=keys_B,
        min_frames=min_frames_B,
        max_frames=max_frames_B,
        codes=jnp.zeros((B, max_frames), jnp.int32),
        length=jnp.zeros(B, jnp.int32),
        live=max_frames_B > 0,
        finished=jnp.zeros(B, bool),
        log_probability=jnp.zeros(B),
        recent=jnp.full((B, sampling.repetition_window), -1, jnp.int32),
    )


def draw(model: ARDecoder, layers: list[Block], sampling: Sampling, slots: Slots) -> Slots:
    """A step: one more group of codes in every live slot; `layers` are the model's, unstacked."""

    def per_row(x: jax.Array) -> jax.Array:
        """What is fed to the decoder: with guidance every row twice."""
        return jnp.concatenate([x, x]) if sampling.guided else x

    position = slots.first_position + slots.length
    codes = []
    for place in range(model.config.codes_per_step):
        slots, code = _draw_code(slots, slots.logits[:, place], sampling, may_end=place == 0)
        codes.append(code)
    logits, cache = model.decode(per_row(jnp.stack(codes, axis=1)), per_row(position), slots.cache, layers)
    # A slot that has ended stays as long as it is, however long the others go on.
    length = jnp.where(per_row(slots.live), cache.length, slots.cache.length)
    return dataclasses.replace(slots, logits=logits, cache=dataclasses.replace(cache, length=length))


def _draw_code(slots: Slots, logits: jax.Array, sampling: Sampling, *, may_end: bool) -> tuple[Slots, jax.Array]:
    """One more code in every live slot, from logits [B or 2B, V + 1]; also the codes, 0 where a slot has ended."""
    B, end_of_speech = slots.keys.shape[0], logits.shape[-1] - 1
    given_text, without = logits[:B], logits[B:]
    logits = without + sampling.guidance * (given_text - without) if sampling.guided else given_text
    early = (slots.length < slots.min_frames) | (not may_end)
    is_end = jnp.arange(logits.shape[-1]) == end_of_speech
    allowed = jnp.where(early[:, None] & is_end[None], -jnp.inf, logits)
    keys = jax.vmap(jax.random.fold_in)(slots.keys, slots.length)
    code = sampling.draw(allowed, keys, slots.recent)
    row = jnp.arange(B)
    log_probability = jax.nn.log_softmax(given_text)[row, code]
    ended = (code == end_of_speech) & slots.live
    alive = slots.live & ~ended
    length = slots.length + alive
    recent = (
        jnp.concatenate([slots.recent[:, 1:], code[:, None]], axis=1) if sampling.repetition_window else slots.recent
    )
    drawn = dataclasses.replace(
        slots,
        codes=slots.codes.at[row, jnp.where(alive, slots.length, slots.codes.shape[1])].set(code, mode="drop"),
        length=length,
        live=alive & (length < slots.max_frames),
        finished=slots.finished | ended,
        log_probability=slots.log_probability + jnp.where(slots.live, log_probability, 0.0),
        recent=recent,
    )
    return drawn, jnp.where(alive, code, 0)
