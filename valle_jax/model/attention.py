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

from valle_jax.errors import UserError
from valle_jax.model.blocked_attention import BLOCK, blocked_attention
from valle_jax.model.gpu_attention import cudnn_attention, cudnn_supports, pallas_gpu_attention, pallas_gpu_supports
from valle_jax.model.masks import Interval
from valle_jax.model.splash_attention import splash_attention, splash_supports
from valle_jax.model.xla_attention import xla_attention
from valle_jax.parallel.mesh import platform
from valle_jax.parallel.sharding import spec

Kernel = Callable[[jax.Array, jax.Array, jax.Array, Interval], jax.Array]


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to compute attention, where it runs, and what it refuses.

    `is_supported(q, k, interval)` returns None, or the reason why this back end cannot do the case on its platform.
    """

    name: str
    kernel: Kernel
    platforms: tuple[str, ...]
    is_supported: Callable[[jax.Array, jax.Array, Interval], str | None]

    def refusal(self, q: jax.Array, k: jax.Array, interval: Interval) -> str | None:
        """None, or the reason why this back end cannot do the case here."""
        if platform() not in self.platforms:
            return f"it runs on {' and '.join(self.platforms)} only, this is {platform()}"
        return self.is_supported(q, k, interval)


def _blocked_supports(q: jax.Array, k: jax.Array, interval: Interval) -> str | None:
    if q.shape[1] != k.shape[1]:
        return "queries and keys must be the same tokens"
    if q.shape[1] < 2 * BLOCK:
        return f"fewer than {2 * BLOCK} tokens: hardly a block could be skipped"
    return None


# In order of preference. What stands behind `xla`, which does everything, is taken by name only: `pallas_gpu` until it
# has been measured against cuDNN.
BACKENDS = (
    Backend("splash", splash_attention, ("tpu",), splash_supports),
    Backend("cudnn", cudnn_attention, ("gpu",), cudnn_supports),
    Backend("blocked", blocked_attention, ("cpu",), _blocked_supports),
    Backend("xla", xla_attention, ("cpu", "gpu", "tpu"), lambda q, k, interval: None),
    Backend("pallas_gpu", pallas_gpu_attention, ("gpu",), pallas_gpu_supports),
)


def select(name: str, q: jax.Array, k: jax.Array, interval: Interval) -> Backend:
    """The back end of that name, or for "auto" the first that supports the case; UserError if it refuses."""
    refused: list[str] = []
    for backend in BACKENDS:
        if name not in ("auto", backend.name):
            continue
        reason = backend.refusal(q, k, interval)
        if reason is None:
            _log_choice(backend.name, q.shape, str(q.dtype), interval.pattern, tuple(refused))
            return backend
        if name != "auto":
            raise UserError(f"attention back end {name!r} cannot do this: {reason}; use model.attention=auto")
        refused.append(f"{backend.name}: {reason}")
    raise UserError(f"unknown attention back end {name!r}; known: auto, {', '.join(b.name for b in BACKENDS)}")


@functools.cache
def _log_choice(name: str, shape: tuple[int, ...], dtype: str, pattern: str, refused: tuple[str, ...]) -> None:
    passed = f" (not {'; not '.join(refused)})" if refused else ""
    logging.getLogger(__name__).info("attention: %s for %s queries %s %s%s", name, pattern, shape, dtype, passed)


def attention(
    q_BTNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, interval: Interval, *, backend: str = "auto"
) -> jax.Array:
    """Attention of queries [B, T, N, H] over the keys [B, S, N, H] of their intervals; returns [B, T, N, H]."""
    kernel = select(backend, q_BTNH, k_BSNH, interval).kernel
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        heads = spec(("batch", "length", "heads", None))
        tokens = spec(("batch", "length"))
        kernel = jax.shard_map(
            kernel, mesh=mesh, in_specs=(heads, heads, heads, tokens), out_specs=heads, check_vma=False
        )
    return kernel(q_BTNH, k_BSNH, v_BSNH, interval)
