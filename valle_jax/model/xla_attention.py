"""Attention in plain array operations: every case on every platform, and the oracle of the other back ends' tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from valle_jax.model.masks import Interval


def xla_attention(q_BTNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, interval: Interval) -> jax.Array:
    """All scores at once, float32 softmax: [B, T, N, H]. Memory grows with B · N · T · S."""
    scores_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    seen_B1TS = interval.dense(k_BSNH.shape[1])[:, None]
    # The maximum over the seen keys only; 0 for a query that sees nothing, whose weights are then all zero.
    scores_BNTS = jnp.where(seen_B1TS, scores_BNTS * q_BTNH.shape[-1] ** -0.5, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.maximum(scores_BNTS.max(-1, keepdims=True), -1e30))
    weights = jnp.exp(scores_BNTS - top)
    weights /= jnp.maximum(weights.sum(-1, keepdims=True), 1e-30)
    return jnp.einsum("bnts,bsnh->btnh", weights.astype(v_BSNH.dtype), v_BSNH)
