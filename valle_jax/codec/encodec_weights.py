"""EnCodec's state dict, as the PyTorch package saves it, as parameters of `valle_jax.codec.seanet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from einops import rearrange

from valle_jax.codec.seanet import RATIOS
from valle_jax.interop.tensors import Tensors


class _Reader(Tensors):
    """The parts of EnCodec."""

    def weight(self, prefix: str) -> np.ndarray:
        """A weight, its norm folded in: g · v / |v|, where the length is over all axes but the first."""
        if f"{prefix}.weight" in self:
            return self.take(f"{prefix}.weight")
        names = ("weight_g", "weight_v")
        if f"{prefix}.{names[0]}" not in self:  # since PyTorch 2
            names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
        scale, direction = (self.take(f"{prefix}.{name}") for name in names)
        return scale * direction / np.sqrt(np.square(direction).sum((1, 2), keepdims=True))

    def convolution(self, prefix: str) -> dict[str, np.ndarray]:
        prefix += ".conv.conv"
        weight = rearrange(self.weight(prefix), "outputs inputs kernel -> kernel inputs outputs")
        return {"weight": weight, "bias": self.take(f"{prefix}.bias")}

    def upsampling(self, prefix: str, stride: int) -> dict[str, np.ndarray]:
        prefix += ".convtr.convtr"
        # The first half of the kernel falls on an input's own outputs, the second on those of the next input.
        weight = rearrange(self.weight(prefix), "inputs outputs (half s) -> half inputs s outputs", s=stride)[::-1]
        return {"weight": weight, "bias": self.take(f"{prefix}.bias")}

    def residual(self, prefix: str) -> dict[str, dict[str, np.ndarray]]:
        parts = {"narrow": "block.1", "widen": "block.3", "shortcut": "shortcut"}
        return {name: self.convolution(f"{prefix}.{part}") for name, part in parts.items()}

    def lstm(self, prefix: str) -> dict[str, np.ndarray]:
        def stack(name: str) -> np.ndarray:
            return np.stack([self.take(f"{prefix}.lstm.{name}_l{layer}") for layer in range(2)])

        weights = {"w_in": stack("weight_ih"), "w_recurrent": stack("weight_hh")}
        return {
            **{name: weight.swapaxes(1, 2) for name, weight in weights.items()},
            "bias": stack("bias_ih") + stack("bias_hh"),
        }


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of an `EncodecNetwork`, as nested dicts of float32 arrays, all codebooks that there are included.

    Raises:
      ValueError: a tensor is missing, left over or of another shape.
    """
    reader = _Reader(tensors)
    encoder: dict[int, Any] = {0: reader.convolution("encoder.model.0")}
    place = 1
    for _ in RATIOS:
        encoder[place] = reader.residual(f"encoder.model.{place}")
        encoder[place + 2] = reader.convolution(f"encoder.model.{place + 2}")
        place += 3
    encoder[place] = reader.lstm(f"encoder.model.{place}")
    encoder[place + 2] = reader.convolution(f"encoder.model.{place + 2}")
    decoder: dict[int, Any] = {0: reader.convolution("decoder.model.0"), 1: reader.lstm("decoder.model.1")}
    place = 3
    for ratio in RATIOS:
        decoder[place] = reader.upsampling(f"decoder.model.{place}", ratio)
        decoder[place + 1] = reader.residual(f"decoder.model.{place + 1}")
        place += 3
    decoder[place] = reader.convolution(f"decoder.model.{place}")
    codebooks: list[np.ndarray] = []
    while f"quantizer.vq.layers.{len(codebooks)}._codebook.embed" in reader:
        codebooks.append(reader.take(f"quantizer.vq.layers.{len(codebooks)}._codebook.embed"))
    # What only the training of the codec needs is left.
    if left := [name for name in reader.left() if not name.endswith((".inited", ".cluster_size", ".embed_avg"))]:
        raise ValueError(f"it has a tensor {left[0]} that EnCodec 24 kHz lacks")
    return {
        "encoder": {"model": encoder},
        "decoder": {"model": decoder},
        "quantizer": {"codebooks": np.stack(codebooks)},
    }
