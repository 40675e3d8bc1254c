"""Attention over per-query key intervals, by the first back end that supports the case.

A back end computes softmax(q kᵀ / sqrt(H)) v where query t sees the keys [start_t, end_t); a query that sees nothing
gets zeros. Under a mesh the chosen back end runs inside `shard_map` over rows and heads, so none of them needs to know
how to be partitioned.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp

from valle_jax.errors import UserError
from valle_jax.model.blocked_attention import BLOCK, blocked_attention
from valle_jax.model.masks import Interval
from valle_jax.parallel.mesh import platform
from valle_jax.parallel.sharding import spec

Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def xla_attention(q_BTNH, k_BSNH, v_BSNH, start_BT, end_BT) -> jax.Array:
    """The oracle: all scores at once, float32 softmax. Memory grows with B · N · T · S."""
    scores_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    key = jnp.arange(k_BSNH.shape[1], dtype=jnp.int32)[None, None, None, :]
    seen = (key >= start_BT[:, None, :, None]) & (key < end_BT[:, None, :, None])
    # The maximum over the seen keys only; 0 for a query that sees nothing, whose weights are then all zero.
    scores_BNTS = jnp.where(seen, scores_BNTS * q_BTNH.shape[-1] ** -0.5, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.maximum(scores_BNTS.max(-1, keepdims=True), -1e30))
    weights = jnp.exp(scores_BNTS - top)
    weights /= jnp.maximum(weights.sum(-1, keepdims=True), 1e-30)
    return jnp.einsum("bnts,bsnh->btnh", weights.astype(v_BSNH.dtype), v_BSNH)


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to compute attention, and what it refuses.

    `is_supported(q, k)` returns None, or the reason why this back end cannot do the case.
    """

    name: str
    kernel: Kernel
    is_supported: Callable[[jax.Array, jax.Array], str | None]


def _blocked_supports(q: jax.Array, k: jax.Array) -> str | None:
    if platform() != "cpu":
        return "its loops over blocks pay on CPUs only"
    if q.shape[1] != k.shape[1]:
        return "queries and keys must be the same tokens"
    if q.shape[1] < 2 * BLOCK:
        return f"fewer than {2 * BLOCK} tokens: hardly a block could be skipped"
    return None


# In order of preference.
BACKENDS = (
    Backend("blocked", blocked_attention, _blocked_supports),
    Backend("xla", xla_attention, lambda q, k: None),
)


def select(name: str, q: jax.Array, k: jax.Array) -> Backend:
    """The back end of that name, or for "auto" the first that supports the case; UserError if it refuses."""
    for backend in BACKENDS:
        if name not in ("auto", backend.name):
            continue
        reason = backend.is_supported(q, k)
        if reason is None:
            _log_choice(backend.name, q.shape, str(q.dtype))
            return backend
        if name != "auto":
            raise UserError(f"attention back end {name!r} cannot do this: {reason}; use model.attention=auto")
    raise UserError(f"unknown attention back end {name!r}; known: auto, {', '.join(b.name for b in BACKENDS)}")


@functools.cache
def _log_choice(name: str, shape: tuple[int, ...], dtype: str) -> None:
    logging.getLogger(__name__).info("attention: %s for queries %s %s", name, shape, dtype)


def attention(
    q_BTNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, interval: Interval, *, backend: str = "auto"
) -> jax.Array:
    """Attention of queries [B, T, N, H] over the keys of their intervals (int32 [B, T] each); returns [B, T, N, H]."""
    kernel = select(backend, q_BTNH, k_BSNH).kernel
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        heads = spec(("batch", "length", "heads", None))
        tokens = spec(("batch", "length"))
        kernel = jax.shard_map(
            kernel, mesh=mesh, in_specs=(heads, heads, heads, tokens, tokens), out_specs=heads, check_vma=False
        )
    return kernel(q_BTNH, k_BSNH, v_BSNH, *interval)
