"""Which keys a query sees.

Every mask of VALL-E is one contiguous interval of key positions per query: `[start, end)`. A causal query sees from the
start of its segment to itself, a NAR query its whole segment, a phoneme under bidirectional text attention the phonemes
of its segment. Two int32 [B, T] arrays say it all, and a blocked back end reads from them which blocks to skip. Kernels
that take a mask known at trace time and segment numbers need to know besides which kind of interval it is: the pattern.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

from valle_jax.data.batch import KIND_TEXT

Pattern = Literal["causal", "full", "mixed"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("start", "end"), meta_fields=("pattern",))
@dataclasses.dataclass(frozen=True)
class Interval:
    """Query t of a row sees the keys [start_t, end_t); where end_t <= start_t it sees nothing (padding).

    Attributes:
      start: int32 [B, T]. In the patterns "causal" and "full" equal for all tokens of a segment, and for those only;
        a run of padding counts as a segment.
      end: int32 [B, T].
      pattern: known at trace time. "causal": what sees anything sees its segment up to itself; "full": its segment;
        "mixed": neither for all queries.
    """

    start: jax.Array
    end: jax.Array
    pattern: Pattern

    @property
    def seen(self) -> jax.Array:
        """Bool [B, T]: which queries see anything."""
        return self.end > self.start

    def at(self, places_BM: jax.Array | None) -> Interval:
        """Of the queries at these places, in any order; of all where there are no places."""
        if places_BM is None:
            return self
        start, end = (jnp.take_along_axis(x, places_BM, axis=1, mode="clip") for x in (self.start, self.end))
        return Interval(start, end, "mixed")

    def dense(self, keys: int) -> jax.Array:
        """The mask, bool [B, T, S], over that many keys."""
        key = jnp.arange(keys, dtype=jnp.int32)[None, None, :]
        return (key >= self.start[..., None]) & (key < self.end[..., None])


def _segment_bounds(segment_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
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
    return Interval(start, jnp.where(segment_BT > 0, end, start), "full")


def causal(segment_BT: jax.Array, kind_BT: jax.Array, *, bidirectional_text: bool) -> Interval:
    """The own segment up to the token itself; with `bidirectional_text`, phonemes see all phonemes of the segment."""
    start, _ = _segment_bounds(segment_BT)
    end = jnp.arange(1, segment_BT.shape[1] + 1, dtype=jnp.int32)[None, :]
    if bidirectional_text:
        is_text = kind_BT == KIND_TEXT
        _, text_end = _segment_bounds(2 * segment_BT + is_text)
        end = jnp.where(is_text, text_end, end)
    pattern: Pattern = "mixed" if bidirectional_text else "causal"
    return Interval(start, jnp.where(segment_BT > 0, end, start), pattern)
