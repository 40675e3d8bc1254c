"""The compiled samplers: prefill and a cached `while_loop` for the AR, all stages in one program for the NAR.

Shapes are the only thing that recompiles: the caller pads rows to length buckets. Everything that differs between
utterances (lengths, limits, keys) is an array.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from valle_jax.data.batch import KIND_ACOUSTIC
from valle_jax.inference.decoding import bind, draw, prefill
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params
from valle_jax.model.nar import NARDecoder, hide_prompt


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """What the AR sampler made of a batch.

    Attributes:
      codes: int32 [B, M], codebook 1; zero behind each row's length.
      length: int32 [B], frames before the end of speech.
      finished: bool [B], whether the row ended by end of speech (and not by its limit).
      log_probability: float32 [B], mean log-probability of the codes and the end, under the unmodified distribution.
    """

    codes: jax.Array
    length: jax.Array
    finished: jax.Array
    log_probability: jax.Array


@functools.partial(jax.jit, static_argnames=("decoder", "sampling", "max_frames"))
def generate_ar(
    decoder: Decoder,
    params: Params,
    batch: dict[str, jax.Array],
    keys: jax.Array,
    min_frames_B: jax.Array,
    max_frames_B: jax.Array,
    *,
    sampling: Sampling,
    max_frames: int,
) -> Generated:
    """Draws codebook 1 of N takes behind each row's prompt until their ends of speech. The prefix is computed once.

    A step gives the G codes of a group (`model.group_size`), drawn in order, each from a distribution of its own. End
    of speech is drawn in the first place of a group only, which is where training puts it.

    Args:
      decoder: an AR decoder.
      params: its parameters.
      batch: one segment per row, padded on the right: token int32 [B, T G], kind, segment, position, int32 [B, T]; it
        ends with the last frames of the acoustic prompt (or with the token before the first where there is no prompt).
      keys: [B N], one random key per take; the N takes of a row lie side by side, here and in what is generated.
      min_frames_B: int32 [B], end of speech is not drawn before.
      max_frames_B: int32 [B], drawing stops there, with `finished` False.
      sampling: the decoding rules.
      max_frames: size M of the buffers, at least the largest of max_frames_B.
    """
    model = bind(decoder, params)
    layers = model.unstack()
    n_takes = len(keys) // len(batch["segment"])
    slots = prefill(
        model,
        batch,
        keys[::n_takes],
        min_frames_B,
        max_frames_B,
        sampling=sampling,
        max_frames=max_frames,
    )
    if n_takes > 1:
        slots = jax.tree.map(lambda x: jnp.repeat(x, n_takes, axis=0), slots)
        slots = dataclasses.replace(slots, keys=keys)
    slots = jax.lax.while_loop(
        lambda slots: slots.live.any(), lambda slots: draw(model, layers, sampling, slots), slots
    )
    return Generated(slots.codes, slots.length, slots.finished, slots.mean_log_probability)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("codebooks", "temperature"), meta_fields=("guidance",)
)
@dataclasses.dataclass(frozen=True)
class Filling:
    """How the NAR's codes are chosen; as made, the most probable ones (P1, section 4.3). Beyond the papers:

    With codebooks, the codes whose vectors lie nearest to the expected ones. Where a decoder is not sure, its most
    probable code is mostly wrong and moves the frame away from what it should be; the expected vector is short then,
    and so is that of the code nearest to it.

    With guidance, classifier-free guidance by the acoustic prompt (Ho and Salimans, 2022): a decoder that was trained
    little follows the voice of its prompt more faintly than it should.

    Attributes:
      codebooks: None, or float32 [Q, V, K], `Codec.codebooks`.
      temperature: divides the logits before the expected vector is taken; towards 0 that is the most probable code's.
      guidance: logits become u + guidance (l - u), where u are those without the prompt; 1 leaves them alone, above it
        costs twice the work.
    """

    codebooks: jax.Array | np.ndarray | None = None
    temperature: jax.Array | float = 1.0
    guidance: float = 1.0

    def scores(self, logits_BTV: jax.Array, stage: jax.Array) -> jax.Array:
        """Float32 [B, T, V], the highest for the code to take.

        With codebooks that is half the squared distance to the expected vector, negated, up to a constant.
        """
        if self.codebooks is None:
            return logits_BTV
        vectors_VK = jnp.asarray(self.codebooks)[stage]
        expected_BTK = jax.nn.softmax(logits_BTV / self.temperature) @ vectors_VK
        return expected_BTK @ vectors_VK.T - jnp.square(vectors_VK).sum(-1)[None, None] / 2


MOST_PROBABLE = Filling()


@functools.partial(jax.jit, static_argnames=("decoder", "frames"))
def generate_nar(
    decoder: Decoder,
    params: Params,
    batch: dict[str, jax.Array],
    filling: Filling = MOST_PROBABLE,
    *,
    frames: int | None = None,
) -> jax.Array:
    """Fills codebooks 2..Q of the target frames, one stage after the other.

    All tokens see each other, so that every layer computes all of them; but the last one, and the heads, only
    `frames` of a row.

    Args:
      decoder: a NAR decoder.
      params: its parameters.
      batch: one segment per row: token, kind, segment, position int32 [B, T]; codes int32 [B, T, Q] with all codebooks
        of the prompt frames (KIND_PROMPT) and codebook 1 of the target frames (KIND_ACOUSTIC).
      filling: how codes are chosen.
      frames: no row has more targets; None: a row may be all target.

    Returns:
      codes int32 [B, T, Q].
    """
    model = decoder.bind(params)
    assert isinstance(model, NARDecoder)
    target_BT = batch["kind"] == KIND_ACOUSTIC
    row_B1 = jnp.arange(len(target_BT))[:, None]
    places_BM = jnp.argsort(~target_BT, axis=1, stable=True)[:, :frames]  # targets, and then what fills up
    written_BM = jnp.where(target_BT[row_B1, places_BM], places_BM, target_BT.shape[1])

    def stage(j: jax.Array, codes_BTQ: jax.Array) -> jax.Array:
        inputs = {**batch, "codes": codes_BTQ, "stage": jnp.full(codes_BTQ.shape[0], j)}
        logits_BMV = model(inputs, places_BM=places_BM)
        if filling.guidance != 1.0:
            bare_BMV = model(hide_prompt(inputs), places_BM=places_BM)
            logits_BMV = bare_BMV + filling.guidance * (logits_BMV - bare_BMV)
        best_BM = filling.scores(logits_BMV, j).argmax(-1).astype(codes_BTQ.dtype)
        return codes_BTQ.at[row_B1, written_BM, j].set(best_BM, mode="drop")

    return jax.lax.fori_loop(1, decoder.config.codebooks, stage, batch["codes"])
