"""Parameters, norms, embeddings. Shapes: B rows, T tokens, D width, N heads, H head width, F inner width, L layers."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

NORM_EPS = 1e-5
EMBEDDING_STD = 0.64  # after the factor sqrt(D) at the input; about the RMS of the sinusoids (0.71)


def final_norm_scale(d_model: int) -> float:
    """Where the scale of the final norm starts.

    Behind a tied head, a token's own embedding, still in the residual stream, gives the token itself a logit of about
    0.4 sqrt(D): 12 at the paper's width, an initial loss of 12 nats. This scale holds it at 3, which adds 0.02 nats.
    """
    return min(1.0, 8.0 * d_model**-0.5)


def param(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std²), annotated with the logical axis of each dimension."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    """A float32 parameter that starts at one value."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


def sinusoids(position_BT: jax.Array, d_model: int) -> jax.Array:
    """Sinusoidal positions, float32 [B, T, D]: sines in the even channels, cosines in the odd ones."""
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(0, d_model, 2) / d_model)
    angle = position_BT[..., None].astype(jnp.float32) * frequency[None, None, :]
    return rearrange([jnp.sin(angle), jnp.cos(angle)], "pair ... d -> ... (d pair)")


def rotary_angles(position_BT: jax.Array, head_width: int) -> jax.Array:
    """By what `rotate` turns the channel pairs of a head, float32 [B, T, H / 2]."""
    frequency = jnp.exp(-jnp.log(10_000.0) * jnp.arange(0, head_width, 2) / head_width)
    return position_BT[..., None].astype(jnp.float32) * frequency[None, None, :]


def rotate(x_BTNH: jax.Array, angle_BTP: jax.Array | None) -> jax.Array:
    """Rotary positions (Su et al., 2021, "RoFormer"): turns the pairs (i, i + H / 2) of a query's or key's channels.

    The product of a query and a key then depends on the difference of their positions; None leaves x alone.
    """
    if angle_BTP is None:
        return x_BTNH
    left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle_BTP)[:, :, None], jnp.sin(angle_BTP)[:, :, None]
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x_BTNH.dtype)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of x and rescales the rest; the identity where `key` is None or the rate is 0."""
    if key is None or rate == 0.0:
        return x
    # 16 random bits an element are enough to tell a rate, and cost half of what `bernoulli` draws.
    # The barrier keeps XLA from fusing the generator into every consumer of the mask and running it again in each.
    keep = jax.lax.optimization_barrier(jax.random.bits(key, x.shape, jnp.uint16) >= round(rate * 2**16))
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def standardize(x: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the last axis, in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + NORM_EPS)


class LayerNorm(nnx.Module):
    """LayerNorm, in the NAR modulated by the stage: `a_j · LN(x) + b_j` (P1, section 4.2.2).

    (a, b) are one linear layer of the stage embedding; it starts with a = 1, b = 0 for every stage.
    `stack` is `()`, or `(n_layers,)` for the norms of a scanned stack.
    """

    def __init__(self, d_model: int, *, adaptive: bool, stack: tuple[int, ...] = (), scale: float = 1.0):
        stacked = ("layers",) * len(stack)
        self.scale = constant(scale, (*stack, d_model), (*stacked, None))
        self.bias = constant(0.0, (*stack, d_model), (*stacked, None))
        self.adaptive = adaptive
        if adaptive:
            self.modulation = constant(0.0, (*stack, d_model, 2, d_model), (*stacked, "embed", None, None))
            self.modulation_scale = constant(1.0, (*stack, d_model), (*stacked, None))
            self.modulation_bias = constant(0.0, (*stack, d_model), (*stacked, None))

    def __call__(self, x_BTD: jax.Array, stage_BD: jax.Array | None) -> jax.Array:
        y = standardize(x_BTD) * self.scale[None, None] + self.bias[None, None]
        if self.adaptive:
            ab = jnp.einsum("bd,dce->bce", stage_BD, self.modulation[...])
            a = ab[:, 0] + self.modulation_scale[None]
            b = ab[:, 1] + self.modulation_bias[None]
            y = a[:, None] * y + b[:, None]
        return y.astype(x_BTD.dtype)


@jax.custom_vjp
def widen(x_BTD: jax.Array, w_DGF: jax.Array) -> jax.Array:
    """`x w`, [B, T, G, F], with x on the left in the product that gives the gradient of w.

    CPUs transpose the left operand of a product; left to itself, that would be the wider one.
    """
    return jnp.einsum("btd,dgf->btgf", x_BTD, w_DGF)


def _widen_backward(operands, g_BTGF):
    x_BTD, w_DGF = operands
    return jnp.einsum("btgf,dgf->btd", g_BTGF, w_DGF), jnp.einsum("btd,btgf->dgf", x_BTD, g_BTGF)


widen.defvjp(lambda x, w: (widen(x, w), (x, w)), _widen_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """GELU (tanh form) that keeps its derivative from the forward pass: the backward pass is one product, no tanh."""
    return jax.nn.gelu(x)


def _gelu_forward(x):
    return jax.jvp(jax.nn.gelu, (x,), (jnp.ones_like(x),))


gelu.defvjp(_gelu_forward, lambda derivative, g: (g * derivative,))

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": gelu, "relu": jax.nn.relu}


class FeedForward(nnx.Module):
    """Two linear layers with a GELU, a ReLU, or a SwiGLU gate between them."""

    def __init__(self, d_model: int, d_ff: int, activation: str, *, n_layers: int, rngs: nnx.Rngs):
        self.activation = activation
        gates = 2 if activation == "swiglu" else 1
        self.w_in = param(rngs, (n_layers, d_model, gates, d_ff), ("layers", "embed", None, "mlp"), std=d_model**-0.5)
        self.b_in = constant(0.0, (n_layers, gates, d_ff), ("layers", None, "mlp"))
        self.w_out = param(
            rngs, (n_layers, d_ff, d_model), ("layers", "mlp", "embed"), std=(2 * n_layers * d_ff) ** -0.5
        )
        self.b_out = constant(0.0, (n_layers, d_model), ("layers", None))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        dtype = x_BTD.dtype
        h_BTGF = widen(x_BTD, self.w_in[...].astype(dtype))
        h_BTGF += self.b_in[None, None].astype(dtype)
        if self.activation == "swiglu":
            h_BTF = jax.nn.silu(h_BTGF[:, :, 0]) * h_BTGF[:, :, 1]
        else:
            h_BTF = ACTIVATIONS[self.activation](h_BTGF[:, :, 0])
        return jnp.einsum("btf,fd->btd", h_BTF, self.w_out[...].astype(dtype)) + self.b_out[None, None].astype(dtype)
