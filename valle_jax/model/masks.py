"""Which keys a query sees.

Every mask of VALL-E is one contiguous interval of key positions per query: `[start, end)`. A causal query sees from the
start of its segment to itself, a NAR query its whole segment, a phoneme under bidirectional text attention the phonemes
of its segment. Two int32 [B, T] arrays say it all, and a blocked back end reads from them which blocks to skip.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from valle_jax.data.batch import KIND_TEXT

Interval = tuple[jax.Array, jax.Array]


def _segment_bounds(segment_BT: jax.Array) -> Interval:
    """First index, and one past the last index, of each token's run of equal segment numbers."""
    length = segment_BT.shape[1]
    index = jnp.arange(length, dtype=jnp.int32)[None, :]
    change = segment_BT[:, 1:] != segment_BT[:, :-1]
    edge = jnp.ones((segment_BT.shape[0], 1), bool)
    first = jnp.concatenate([edge, change], axis=1)
    last = jnp.concatenate([change, edge], axis=1)
    start = jax.lax.cummax(jnp.where(first, index, 0), axis=1)
    end = jax.lax.cummin(jnp.where(last, index + 1, length), axis=1, reverse=True)
    return start, end


def full(segment_BT: jax.Array) -> Interval:
    """All tokens of the own segment; nothing for padding (segment 0)."""
    start, end = _segment_bounds(segment_BT)
    return start, jnp.where(segment_BT > 0, end, start)


def causal(segment_BT: jax.Array, kind_BT: jax.Array, *, bidirectional_text: bool) -> Interval:
    """The own segment up to the token itself; with `bidirectional_text`, phonemes see all phonemes of the segment."""
    start, _ = _segment_bounds(segment_BT)
    end = jnp.arange(1, segment_BT.shape[1] + 1, dtype=jnp.int32)[None, :]
    if bidirectional_text:
        is_text = kind_BT == KIND_TEXT
        _, text_end = _segment_bounds(2 * segment_BT + is_text)
        end = jnp.where(is_text, text_end, end)
    return start, jnp.where(segment_BT > 0, end, start)
