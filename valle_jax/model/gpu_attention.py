"""Attention on GPUs: cuDNN's kernel with a dense mask, and the Triton kernel of JAX with segment numbers.

Neither has been measured by this project, for want of a GPU.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from valle_jax.model.masks import Interval

_HALF = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
_TRITON_BLOCK = 128


def cudnn_supports(q: jax.Array, k: jax.Array, interval: Interval) -> str | None:
    """None, or why cuDNN cannot do the case. Any pattern will do: the mask is dense."""
    head_dim = q.shape[-1]
    if q.dtype not in _HALF:
        return f"it computes in bfloat16 or float16, not {q.dtype} (model.dtype)"
    if head_dim > 128 or head_dim % 8:
        return f"head size {head_dim} is not a multiple of 8 up to 128"
    if q.shape[1] % 2 or k.shape[1] % 2:
        return "the gradient under a mask needs an even number of tokens"
    return None


def cudnn_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    interval: Interval,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attention [B, T, N, H]; the mask takes 2 · B · T · S bytes. `implementation` xla runs it without a GPU."""
    mask_B1TS = interval.dense(k_BSNH.shape[1])[:, None]
    out = jax.nn.dot_product_attention(q_BTNH, k_BSNH, v_BSNH, mask=mask_B1TS, implementation=implementation)
    # A masked score is a large negative number: a query that sees nothing has attended to everything.
    return jnp.where(interval.seen[..., None, None], out, 0)


def pallas_gpu_supports(q: jax.Array, k: jax.Array, interval: Interval) -> str | None:
    """None, or why the Triton kernel cannot do the case."""
    head_dim = q.shape[-1]
    if interval.pattern == "mixed":
        return "its mask must be known at trace time: causal or full within segments"
    if q.shape[1] != k.shape[1]:
        return "queries and keys must be the same tokens"
    if q.dtype not in _HALF:
        return f"its blocks are sized for bfloat16 or float16, not {q.dtype} (model.dtype)"
    if head_dim not in (16, 32, 64, 128):
        return f"head size {head_dim} is not a power of two from 16 to 128"
    if q.shape[1] % _TRITON_BLOCK:
        return f"{q.shape[1]} tokens are not a multiple of {_TRITON_BLOCK}"
    return None


def pallas_gpu_attention(
    q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array, interval: Interval, *, interpret: bool = False
) -> jax.Array:
    """Attention [B, T, N, H] of a causal or full pattern; `interpret` runs the kernel on any platform, slowly."""
    from jax.experimental.pallas.ops.gpu.attention import mha

    # The start of its segment tells a segment from all others, and padding from them.
    out = mha(
        q_BTNH,
        k_BTNH,
        v_BTNH,
        interval.start,
        sm_scale=q_BTNH.shape[-1] ** -0.5,
        causal=interval.pattern == "causal",
        interpret=interpret,
    )
    return jnp.where(interval.seen[..., None, None], out, 0)
