"""Cross entropy over the targets of packed rows, as sums, so that the mean over chips and microbatches is exact."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, NO_TARGET, per_code
from valle_jax.model import Decoder, Params
from valle_jax.model.ar import hide_text
from valle_jax.model.head import project, vocabulary_tile
from valle_jax.parallel.sharding import constrain

TOP = 10  # of the accuracy that is reported


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("loss", "targets", "correct_top10", "stage_loss", "stage_targets", "stage_correct_top10"),
    meta_fields=(),
)
@dataclasses.dataclass(frozen=True)
class Sums:
    """What a batch adds up to; the `+` of two batches is their sum over both.

    Attributes:
      loss: float32 [], nats.
      targets: float32 [], number of positions with a target.
      correct_top10: float32 [], targets among the ten most probable outputs.
      stage_loss: float32 [Q - 1] for the NAR, the loss of codebooks 2..Q; None for the AR.
      stage_targets: float32 [Q - 1], the targets of each; None for the AR.
      stage_correct_top10: float32 [Q - 1], of each; None for the AR.
    """

    loss: jax.Array
    targets: jax.Array
    correct_top10: jax.Array
    stage_loss: jax.Array | None
    stage_targets: jax.Array | None
    stage_correct_top10: jax.Array | None

    def __add__(self, other: Sums) -> Sums:
        return jax.tree.map(jnp.add, self, other)


def loss_sums(logits: jax.Array, batch: dict[str, jax.Array], config: ModelConfig) -> Sums:
    """Sums over the positions of a batch whose target is not -1.

    Args:
      logits: float32 [B, T, V].
      batch: `target` int32 [B, T]; for the NAR also `stage` int32 [B] in 1..Q-1 (codebook index, from 0).
      config: tells the stage and the number of codebooks.
    """
    target = batch["target"]
    mask = (target >= 0).astype(jnp.float32)
    label = jnp.maximum(target, 0)
    loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits, label) * mask
    own = jnp.take_along_axis(logits, label[..., None], axis=-1)
    better = (jax.lax.stop_gradient(logits) > jax.lax.stop_gradient(own)).sum(-1)
    correct_BT = (better < TOP) * mask
    loss, targets, correct = loss_BT.sum(), mask.sum(), correct_BT.sum()
    if config.stage == "ar":
        return Sums(loss, targets, correct, None, None, None)
    stage_loss, stage_targets, stage_correct = (
        jax.ops.segment_sum(x_BT.sum(1), batch["stage"] - 1, config.codebooks - 1)
        for x_BT in (loss_BT, mask, correct_BT)
    )
    return Sums(loss, targets, correct, stage_loss, stage_targets, stage_correct)


def decoder_loss_sums(
    decoder: Decoder,
    params: Params,
    batch: dict[str, jax.Array],
    dropout_key: jax.Array | None = None,
    *,
    chunk: int = 0,
    tile: int | None = None,
) -> Sums:
    """`loss_sums` of a decoder's logits, which need not all exist at once (often the largest array of a step).

    Args:
      decoder: whose parameters are `params`.
      params: float32.
      batch: packed rows.
      dropout_key: None switches dropout off.
      chunk: tokens of each row whose logits are computed at a time, and once more in the backward pass; 0: all at once.
      tile: of what the vocabulary is made a multiple; None: as the platform likes it.
    """
    h_BTD, head = decoder.hidden_and_head(params, batch, dropout_key)
    tile = vocabulary_tile() if tile is None else tile

    def sums(h_BTD: jax.Array, target_BT: jax.Array) -> Sums:
        return loss_sums(project(h_BTD, head, tile=tile), batch | {"target": target_BT}, decoder.config)

    length = h_BTD.shape[1]
    if chunk in (0, length):
        return sums(h_BTD, batch["target"])
    # Gathered over the mesh here, not once a chunk. It stays float32: the chunks' gradients of it are summed up in it.
    head = constrain(head, ("batch",) * (head.ndim - 2) + (None, None))
    padding = -length % chunk
    h_BTD = jnp.pad(h_BTD, [(0, 0), (0, padding), (0, 0)])
    target_BT = jnp.pad(batch["target"], [(0, 0), (0, padding)], constant_values=NO_TARGET)
    chunks = (
        rearrange(h_BTD, "b (i t) d -> i b t d", t=chunk),
        rearrange(target_BT, "b (i t) -> i b t", t=chunk),
    )
    parts = jax.lax.map(lambda x: jax.checkpoint(sums, prevent_cse=False)(*x), chunks)
    return jax.tree.map(lambda x: x.sum(0), parts)


def drop_text(batch: dict[str, jax.Array], share: float, key: jax.Array) -> dict[str, jax.Array]:
    """Hides the phonemes of a share of the segments, so that the decoder also learns to speak without a text.

    Guided sampling (`Sampling.guidance`) compares the two.
    """
    rows, length = batch["segment"].shape
    dropped_BS = jax.random.bernoulli(key, share, (rows, length + 1))  # by segment number
    return hide_text(batch, jnp.take_along_axis(dropped_BS, batch["segment"], axis=1))


def add_code_noise(
    batch: dict[str, jax.Array], share: float, codebook_size: int, key: jax.Array
) -> dict[str, jax.Array]:
    """Replaces a share of the AR's input codes by uniformly random ones; targets and the end of speech stay."""
    token = batch["token"]
    draw, code = jax.random.split(key)
    noisy = jax.random.bernoulli(draw, share, token.shape)
    noisy &= per_code(batch["kind"] == KIND_ACOUSTIC, token) & (token < codebook_size)
    return batch | {"token": jnp.where(noisy, jax.random.randint(code, token.shape, 0, codebook_size), token)}
