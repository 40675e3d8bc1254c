"""The networks of EnCodec 24 kHz (arXiv 2210.13438, section 3.2): causal, so that they run on a stream.

Shapes: B waveforms, T samples or frames, C channels. Every layer takes what it needs of the past as a state and returns
the new one; a state of None is the start of a signal, where EnCodec pads by reflection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

CHANNELS = 32
DIMENSION = 128
RATIOS = (8, 5, 4, 2)
"""Upsampling of the decoder's layers; the encoder has them in reverse. Their product is the hop."""
KERNEL = 7
LSTM_LAYERS = 2

State = Any  # nested tuples of arrays, or None


def _param(*shape: int) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape, jnp.float32))


def _reflect(x_BTC: jax.Array, left: int, right: int) -> jax.Array:
    """Pads by reflection; an input that is too short for it is lengthened with zeros first, as EnCodec does."""
    missing = max(0, max(left, right) - x_BTC.shape[1] + 1)
    x_BTC = jnp.pad(x_BTC, ((0, 0), (0, missing), (0, 0)))
    x_BTC = jnp.pad(x_BTC, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return x_BTC[:, : x_BTC.shape[1] - missing]


def _end(x_BTC: jax.Array, length_B: jax.Array, stride: int) -> jax.Array:
    """What EnCodec would see behind each row's length: its mirror image up to a whole stride, and then zeros.

    A row that is no longer than the kernel's padding, a stride, is not mirrored: see `_reflect`.
    """

    def row(x_TC: jax.Array, length: jax.Array) -> jax.Array:
        x_TC = jnp.where(jnp.arange(len(x_TC))[:, None] < length, x_TC, 0)
        behind = jnp.arange(stride - 1)
        mirrored = x_TC[jnp.maximum(length - 2 - behind, 0)]
        missing = jnp.where(length > stride, -length % stride, 0)
        return x_TC.at[jnp.where(behind < missing, length + behind, len(x_TC))].set(mirrored, mode="drop")

    return jax.vmap(row)(x_BTC, length_B)


class Convolution(nnx.Module):
    """A causal convolution. The state is the last kernel - stride inputs, [B, kernel - stride, C]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        self.stride = stride
        self.weight = _param(kernel, inputs, outputs)
        self.bias = _param(outputs)

    def __call__(self, x_BTC: jax.Array, past: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        kernel = self.weight.shape[0]
        padding = kernel - self.stride
        # A last window that is not full is completed: only at the end of a signal, as a stream comes in whole strides.
        right = -x_BTC.shape[1] % self.stride
        x_BTC = _reflect(x_BTC, padding, right) if past is None else jnp.concatenate([past, x_BTC], axis=1)
        past = x_BTC[:, x_BTC.shape[1] - padding :]
        weight = self.weight[...].astype(x_BTC.dtype)
        y = jax.lax.conv_general_dilated(
            x_BTC, weight, (self.stride,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y + self.bias[None, None].astype(y.dtype), past


class Upsampling(nnx.Module):
    """A transposed convolution of kernel 2 × stride, cut on the right: outputs come from an input and the one before.

    The state is the last input, [B, 1, C].
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        self.weight = _param(2, inputs, stride, outputs)  # of the input before, of the input
        self.bias = _param(outputs)

    def __call__(self, x_BTC: jax.Array, past: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        if past is None:
            past = jnp.zeros_like(x_BTC[:, :1])
        before = jnp.concatenate([past, x_BTC[:, :-1]], axis=1)
        weight = self.weight[...].astype(x_BTC.dtype)
        y = jnp.einsum("btc,csd->btsd", before, weight[0]) + jnp.einsum("btc,csd->btsd", x_BTC, weight[1])
        return rearrange(y, "b t s d -> b (t s) d") + self.bias[None, None].astype(y.dtype), x_BTC[:, -1:]


class LSTM(nnx.Module):
    """Stacked LSTMs with a skip connection around them. The state is (h, c), float32 [LSTM_LAYERS, B, C] each."""

    def __init__(self, width: int):
        self.w_in = _param(LSTM_LAYERS, width, 4 * width)
        self.w_recurrent = _param(LSTM_LAYERS, width, 4 * width)
        self.bias = _param(LSTM_LAYERS, 4 * width)

    def __call__(self, x_BTC: jax.Array, past: State) -> tuple[jax.Array, State]:
        batch, _, width = x_BTC.shape
        h, c = past or (jnp.zeros((LSTM_LAYERS, batch, width), jnp.float32),) * 2
        y, ends = x_BTC, []
        for layer in range(LSTM_LAYERS):
            recurrent = self.w_recurrent[layer].astype(y.dtype)
            # All products with the input at once; only those with the state wait for one another.
            gates_TBG = jnp.einsum("btc,cg->tbg", y, self.w_in[layer].astype(y.dtype)) + self.bias[layer][None, None]

            def step(carry, gates_BG, recurrent=recurrent):
                h, c = carry
                gates = gates_BG + (h.astype(recurrent.dtype) @ recurrent).astype(jnp.float32)
                i, f, g, o = jnp.split(gates, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            end, hidden_TBC = jax.lax.scan(step, (h[layer], c[layer]), gates_TBG.astype(jnp.float32), unroll=4)
            ends.append(end)
            y = rearrange(hidden_TBC, "t b c -> b t c").astype(x_BTC.dtype)
        return y + x_BTC, (jnp.stack([h for h, _ in ends]), jnp.stack([c for _, c in ends]))


class Residual(nnx.Module):
    """Two convolutions beside a third one."""

    def __init__(self, width: int):
        self.narrow = Convolution(width, width // 2, 3)
        self.widen = Convolution(width // 2, width, 1)
        self.shortcut = Convolution(width, width, 1)

    def __call__(self, x_BTC: jax.Array, past: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        y, past = self.narrow(jax.nn.elu(x_BTC), past)
        y, _ = self.widen(jax.nn.elu(y), None)
        return self.shortcut(x_BTC, None)[0] + y, past


class Activation(nnx.Module):
    """ELU, without a state."""

    def __call__(self, x_BTC: jax.Array, past: State) -> tuple[jax.Array, State]:
        return jax.nn.elu(x_BTC), ()


def _run(layers: Sequence[Any], x_BTC: jax.Array, states: State) -> tuple[jax.Array, State]:
    ends = []
    for layer, state in zip(layers, states or (None,) * len(layers), strict=True):
        x_BTC, end = layer(x_BTC, state)
        ends.append(end)
    return x_BTC, tuple(ends)


class Encoder(nnx.Module):
    """Waveform to latent frames. The layers stand where they stand in the PyTorch package's `encoder.model`."""

    def __init__(self) -> None:
        width = CHANNELS
        layers: list[nnx.Module] = [Convolution(1, width, KERNEL)]
        for ratio in reversed(RATIOS):
            layers += [Residual(width), Activation(), Convolution(width, 2 * width, 2 * ratio, ratio)]
            width *= 2
        self.model = nnx.List([*layers, LSTM(width), Activation(), Convolution(width, DIMENSION, KERNEL)])

    def __call__(self, waveform_BT: jax.Array, length_B: jax.Array | None = None) -> jax.Array:
        """[B, samples] to [B, ceil(samples / hop), DIMENSION]; `length_B` are the rows' samples, None: all of them."""
        x_BTC = waveform_BT[..., None]
        for layer in self.model:
            if length_B is not None and isinstance(layer, Convolution | Residual):
                stride = layer.stride if isinstance(layer, Convolution) else 1
                x_BTC = _end(x_BTC, length_B, stride)
                length_B = -(-length_B // stride)
            x_BTC, _ = layer(x_BTC, None)
        return x_BTC


class Decoder(nnx.Module):
    """Latent frames to waveform. The layers stand where they stand in the PyTorch package's `decoder.model`."""

    def __init__(self) -> None:
        width = CHANNELS * 2 ** len(RATIOS)
        layers: list[nnx.Module] = [Convolution(DIMENSION, width, KERNEL), LSTM(width)]
        for ratio in RATIOS:
            layers += [Activation(), Upsampling(width, width // 2, ratio), Residual(width // 2)]
            width //= 2
        self.model = nnx.List([*layers, Activation(), Convolution(width, 1, KERNEL)])

    def __call__(self, latent_BTC: jax.Array, state: State = None) -> tuple[jax.Array, State]:
        """[B, T, DIMENSION] to [B, T × hop], and the state with which the next frames go on."""
        waveform_BTC, state = _run(self.model, latent_BTC, state)
        return waveform_BTC[..., 0], state


class Quantizer(nnx.Module):
    """Residual vector quantization."""

    def __init__(self, codebooks: int, codebook_size: int):
        self.codebooks = _param(codebooks, codebook_size, DIMENSION)

    def encode(self, latent_BTC: jax.Array) -> jax.Array:
        """The nearest entry of each codebook to what the ones before left over: int32 [B, T, Q]."""

        def level(rest_BTC, codebook_KC):
            # Distances but for the squared length of what is quantized.
            distance = jnp.square(codebook_KC).sum(-1)[None, None] - 2 * rest_BTC @ codebook_KC.T
            code_BT = jnp.argmin(distance, axis=-1)
            return rest_BTC - codebook_KC[code_BT], code_BT

        _, code_QBT = jax.lax.scan(level, latent_BTC, self.codebooks[...])
        return rearrange(code_QBT, "q b t -> b t q")

    def decode(self, code_BTQ: jax.Array) -> jax.Array:
        """The sum of the entries, float32 [B, T, DIMENSION]; codes of fewer levels than there are take the first."""
        levels = jnp.arange(code_BTQ.shape[-1])
        return self.codebooks[levels[None, None], code_BTQ].sum(-2)


class EncodecNetwork(nnx.Module):
    """Encoder, quantizer and decoder."""

    def __init__(self, codebooks: int, codebook_size: int):
        self.encoder = Encoder()
        self.quantizer = Quantizer(codebooks, codebook_size)
        self.decoder = Decoder()
