"""Attention in blocks that skips the key blocks no query of a block sees: the back end for CPUs.

In a packed row of many utterances most blocks are masked; a dense back end computes them all. The softmax is the online
one, the backward pass recomputes the weights from the saved log-sum-exp (Dao et al. 2022, FlashAttention), and loop
bounds are read from the intervals, so the work is that of the seen blocks only.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange

from valle_jax.model.masks import Interval

BLOCK = 128
_FLOOR = -1e30  # stands for the score of an unseen key; finite, so that differences of two of them are 0, not NaN


def _bounds(start_T: jax.Array, end_T: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First key block, and one past the last, that the queries of one block see."""
    seen = end_T > start_T
    first = jnp.min(jnp.where(seen, start_T, jnp.iinfo(jnp.int32).max))
    last = jnp.max(jnp.where(seen, end_T, 0))
    return jnp.minimum(first, last) // BLOCK, (last + BLOCK - 1) // BLOCK


def _slice(x: jax.Array, i: jax.Array, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * BLOCK, BLOCK, axis)


def _scores(q_NTH, k_NHS, start_T, end_T, key_block) -> jax.Array:
    """Scores of one block pair, float32 [N, T, S], `_FLOOR` where unseen. q is scaled already."""
    scores = jnp.einsum("nth,nhs->nts", q_NTH, k_NHS, preferred_element_type=jnp.float32)
    key = (key_block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32))[None, :]
    seen = (key >= start_T[:, None]) & (key < end_T[:, None])
    return jnp.where(seen[None], scores, _FLOOR)


def _forward_row(q_NTH, k_NHT, v_NTH, start_T, end_T):
    """One row: output [N, T, H] and the log-sum-exp of the scores [N, T]."""
    n, length, h = q_NTH.shape

    def query_block(i):
        q, start, end = _slice(q_NTH, i, 1), _slice(start_T, i, 0), _slice(end_T, i, 0)

        def key_block(j, carry):
            out, top, total = carry
            scores = _scores(q, _slice(k_NHT, j, 2), start, end, j)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            decay = jnp.exp(top - new_top)
            out = out * decay[..., None] + jnp.einsum(
                "nts,nsh->nth", weights.astype(v_NTH.dtype), _slice(v_NTH, j, 1), preferred_element_type=jnp.float32
            )
            return out, new_top, total * decay + weights.sum(-1)

        zero = (jnp.zeros((n, BLOCK, h)), jnp.full((n, BLOCK), _FLOOR), jnp.zeros((n, BLOCK)))
        out, top, total = jax.lax.fori_loop(*_bounds(start, end), key_block, zero)
        # A query that sees nothing has summed exp(0) over unseen keys, or nothing: its output is zeroed, and a huge
        # log-sum-exp makes its recomputed weights zero.
        seen = (end > start)[None]
        out = jnp.where(seen[..., None], out / jnp.where(seen, total, 1.0)[..., None], 0.0)
        return out.astype(v_NTH.dtype), jnp.where(seen, top + jnp.log(total), -_FLOOR)

    out, lse = jax.lax.map(query_block, jnp.arange(length // BLOCK))
    return rearrange(out, "i n t h -> n (i t) h"), rearrange(lse, "i n t -> n (i t)")


def _backward_row(q_NTH, q_NHT, k_NTH, k_NHT, v_NHT, start_T, end_T, out_NTH, lse_NT, grad_NTH, grad_NHT):
    """Gradients of one row, float32: of (scaled) q [N, T, H], of k and v [N, H, T]."""
    delta_NT = (out_NTH.astype(jnp.float32) * grad_NTH.astype(jnp.float32)).sum(-1)

    def query_block(carry, i):
        q, grad, start, end = _slice(q_NTH, i, 1), _slice(grad_NTH, i, 1), _slice(start_T, i, 0), _slice(end_T, i, 0)
        lse, delta = _slice(lse_NT, i, 1), _slice(delta_NT, i, 1)
        q_transposed, grad_transposed = _slice(q_NHT, i, 2), _slice(grad_NHT, i, 2)

        def key_block(j, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(q, _slice(k_NHT, j, 2), start, end, j) - lse[..., None])
            dweights = jnp.einsum("nth,nhs->nts", grad, _slice(v_NHT, j, 2), preferred_element_type=jnp.float32)
            dscores = (weights * (dweights - delta[..., None])).astype(q.dtype)
            weights = weights.astype(q.dtype)
            dq += jnp.einsum("nts,nsh->nth", dscores, _slice(k_NTH, j, 1), preferred_element_type=jnp.float32)
            dk_block = jnp.einsum("nht,nts->nhs", q_transposed, dscores, preferred_element_type=jnp.float32)
            dv_block = jnp.einsum("nht,nts->nhs", grad_transposed, weights, preferred_element_type=jnp.float32)
            dk = jax.lax.dynamic_update_slice_in_dim(dk, _slice(dk, j, 2) + dk_block, j * BLOCK, axis=2)
            dv = jax.lax.dynamic_update_slice_in_dim(dv, _slice(dv, j, 2) + dv_block, j * BLOCK, axis=2)
            return dq, dk, dv

        zero = jnp.zeros(q.shape, jnp.float32)
        dq, *carry = jax.lax.fori_loop(*_bounds(start, end), key_block, (zero, *carry))
        return tuple(carry), dq

    zeros = jnp.zeros(k_NHT.shape, jnp.float32)
    (dk, dv), dq = jax.lax.scan(query_block, (zeros, zeros), jnp.arange(q_NTH.shape[1] // BLOCK))
    return rearrange(dq, "i n t h -> n (i t) h"), dk, dv


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _heads_first(x_BTNH: jax.Array) -> jax.Array:
    """[B, N, T, H], T padded to whole blocks."""
    length = x_BTNH.shape[1]
    x_BNTH = rearrange(x_BTNH, "b t n h -> b n t h")
    return jnp.pad(x_BNTH, [(0, 0), (0, 0), (0, _padded(length) - length), (0, 0)])


def _pad_tokens(x_BT: jax.Array) -> jax.Array:
    return jnp.pad(x_BT, [(0, 0), (0, _padded(x_BT.shape[1]) - x_BT.shape[1])])


@jax.custom_vjp
def blocked_attention(q_BTNH, k_BTNH, v_BTNH, interval: Interval) -> jax.Array:
    """Attention [B, T, N, H] where query t sees the keys [start_t, end_t) of the same T tokens."""
    return _forward(q_BTNH, k_BTNH, v_BTNH, interval)[0]


def _scale(q: jax.Array) -> jax.Array:
    return q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)


def _forward(q, k, v, interval):
    heads = (_heads_first(_scale(q)), rearrange(_heads_first(k), "b n t h -> b n h t"), _heads_first(v))
    out, lse = jax.lax.map(
        lambda row: _forward_row(*row), (*heads, _pad_tokens(interval.start), _pad_tokens(interval.end))
    )
    out = rearrange(out[:, :, : q.shape[1]], "b n t h -> b t n h")
    return out, (q, k, v, interval, out, lse)


def _backward(residuals, grad_out):
    q, k, v, interval, out, lse = residuals
    q_NTH, k_NTH, v_NTH, out_NTH, grad_NTH = (_heads_first(x) for x in (_scale(q), k, v, out, grad_out))
    # Both orders of every operand, so that no product inside the loops has to transpose one: 2 x faster on CPU.
    q_NHT, k_NHT, v_NHT, grad_NHT = (rearrange(x, "b n t h -> b n h t") for x in (q_NTH, k_NTH, v_NTH, grad_NTH))
    tokens = (_pad_tokens(interval.start), _pad_tokens(interval.end))
    row = (q_NTH, q_NHT, k_NTH, k_NHT, v_NHT, *tokens, out_NTH, lse, grad_NTH, grad_NHT)
    dq_NTH, dk_NHT, dv_NHT = jax.lax.map(lambda row: _backward_row(*row), row)
    length = q.shape[1]
    dq = _scale(rearrange(dq_NTH[:, :, :length], "b n t h -> b t n h")).astype(q.dtype)
    dk, dv = (rearrange(x[..., :length], "b n h t -> b t n h") for x in (dk_NHT, dv_NHT))
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None


blocked_attention.defvjp(_forward, _backward)
