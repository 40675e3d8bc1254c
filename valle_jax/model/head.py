"""The output projection of both decoders: hidden states to logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from valle_jax.parallel.mesh import platform

_NEVER = -1e30  # the logit of a padding column: its probability is 0 in float32


def vocabulary_tile() -> int:
    """Of what a vocabulary is made a multiple in training: on accelerators 128, the width of a tile of a product.

    The vocabulary of a thousand codes and an end of speech would leave the last tile of a product, or of the softmax
    behind it, almost empty and unaligned. Parameters keep their size; the padding is of the computation only.
    """
    return 1 if platform() == "cpu" else 128


def project(h_BTD: jax.Array, head: jax.Array, *, tile: int = 1) -> jax.Array:
    """Logits float32 [..., V'] of hidden states, V' being V made a multiple of `tile` by columns of -1e30.

    Args:
      h_BTD: [..., D], or [B, T, D] where each row has a head of its own.
      head: [V, D], or [B, V, D].
      tile: 1 leaves the vocabulary as it is.
    """
    entries = head.shape[-2]
    padding = -entries % tile
    head = jnp.pad(head, [(0, 0)] * (head.ndim - 2) + [(0, padding), (0, 0)]) if padding else head
    equation = "...d,vd->...v" if head.ndim == 2 else "btd,bvd->btv"
    logits = jnp.einsum(equation, h_BTD, head.astype(h_BTD.dtype), preferred_element_type=jnp.float32)
    if not padding:
        return logits
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.where(column < entries, logits, _NEVER)
