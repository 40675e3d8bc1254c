"""Attention on TPUs: JAX's Splash kernel, a flash attention under a mask known at trace time and segment numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange

from valle_jax.model.masks import Interval

LANES = 128  # of a TPU's vector registers; the kernel's blocks are multiples of it
# Scores of a block pair lie in fast memory, 1 MiB in float32. Larger blocks would load keys less often, but compute
# more of what is above the diagonal: 60 % of a causal row of 2,560 tokens is computed with 512, 75 % with 1,280.
MAX_BLOCK = 512
# Under this name `remat=dots` keeps the kernel's result and the logarithms of its sums, which its backward pass needs;
# a kernel is no dot, and would run again.
RESIDUALS = "splash_residuals"


def splash_supports(q: jax.Array, k: jax.Array, interval: Interval) -> str | None:
    """None, or why Splash cannot do the case."""
    if interval.pattern == "mixed":
        return "its mask must be known at trace time: causal or full within segments"
    if q.shape[1] != k.shape[1]:
        return "queries and keys must be the same tokens"
    if q.shape[1] % LANES:
        return f"{q.shape[1]} tokens are not a multiple of {LANES}"
    return None


def _block(length: int) -> int:
    """The largest block that divides the row."""
    return max(block for block in range(LANES, MAX_BLOCK + 1, LANES) if length % block == 0)


def splash_attention(
    q_BTNH: jax.Array, k_BTNH: jax.Array, v_BTNH: jax.Array, interval: Interval, *, interpret: bool = False
) -> jax.Array:
    """Attention [B, T, N, H] of a causal or full pattern; `interpret` runs the kernel on any platform, slowly."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as kernel_masks

    length, heads, head_dim = q_BTNH.shape[1:]
    block = _block(length)
    # The fused backward pass computes the scores once for all three gradients, where the two kernels of the other
    # compute them twice; it pays with one copy of the queries' gradient per block of keys, summed afterwards.
    sizes = kernels.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, use_fused_bwd_kernel=True
    )
    mask = (kernel_masks.CausalMask if interval.pattern == "causal" else kernel_masks.FullMask)((length, length))
    kernel = kernels.make_splash_mha_single_device(
        kernel_masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        residual_checkpoint_name=RESIDUALS,
        interpret=interpret,
    )

    def row(q_NTH, k_NTH, v_NTH, segment_T):
        return kernel(q_NTH, k_NTH, v_NTH, segment_ids=kernels.SegmentIds(segment_T, segment_T))

    q, k, v = (rearrange(x, "b t n h -> b n t h") for x in (q_BTNH * head_dim**-0.5, k_BTNH, v_BTNH))
    # The start of its segment tells a segment from all others, and padding from them, so that a token always sees at
    # least itself. What padding saw is set to zero afterwards, and with it its gradients.
    out = rearrange(jax.vmap(row)(q, k, v, interval.start), "b n t h -> b t n h")
    return jnp.where(interval.seen[..., None, None], out, 0)
