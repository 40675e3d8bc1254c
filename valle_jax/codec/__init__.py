"""Codecs behind one protocol."""

from __future__ import annotations

from typing import Literal

from valle_jax.codec.base import Codec, CodecInfo
from valle_jax.errors import UserError

CODECS = ("mel_rvq", "encodec_24khz")


def get_codec(name: str, weights: str | None = None, *, implementation: Literal["jax", "torch"] = "jax") -> Codec:
    """Loads a codec by name; `weights` is a file that replaces the codec's default weights.

    Only the module of the codec that is asked for is imported. `encodec_24khz` is there twice, with the same weights
    and codes: in JAX, and as the PyTorch package.
    """
    if name == "mel_rvq":
        from valle_jax.codec.mel_rvq import MelRVQ

        return MelRVQ.load(weights)
    if name == "encodec_24khz" and implementation == "jax":
        from valle_jax.codec.encodec_jax import EncodecJax

        return EncodecJax.load(weights)
    if name == "encodec_24khz":
        from valle_jax.codec.encodec_torch import EncodecTorch

        return EncodecTorch.load(weights)
    raise UserError(f"unknown codec {name!r}; known: {', '.join(CODECS)}")


__all__ = ["CODECS", "Codec", "CodecInfo", "get_codec"]
