"""What a neural (or not so neural) audio codec must offer to the rest of the project."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from valle_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CodecInfo:
    """The facts of a codec that datasets and models record; nothing else in the project hard-codes them.

    Attributes:
      name: the name `get_codec` knows.
      sample_rate: samples per second of the waveform.
      frames_per_second: code frames per second.
      codebooks: residual levels Q.
      codebook_size: entries per codebook; codes are in [0, codebook_size).
      weight_hash: first 16 hex digits of the SHA-256 of the weights, or as many as are known (8 of published weights
        that an imported model was trained with), so that two codecs of one name do not mix.
      parameters: options that change the codes, such as the bandwidth.
    """

    name: str
    sample_rate: int
    frames_per_second: float
    codebooks: int
    codebook_size: int
    weight_hash: str
    parameters: dict[str, str | int | float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict) -> CodecInfo:
        """The inverse of `to_json`."""
        return cls(**value)

    def check_same(self, other: CodecInfo, mine: str, others: str) -> None:
        """Raises UserError naming both artefacts unless `other` yields the same codes as this codec."""
        digits = min(len(self.weight_hash), len(other.weight_hash))
        mine_cut, other_cut = (dataclasses.replace(c, weight_hash=c.weight_hash[:digits]) for c in (self, other))
        if mine_cut != other_cut:
            raise UserError(
                f"{mine} was made with codec {self.name} ({self.weight_hash}, {self.parameters}) but {others} with "
                f"{other.name} ({other.weight_hash}, {other.parameters}); prepare both with one codec"
            )


def pad_codes(items: Sequence[np.ndarray], codebooks: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of B utterances, [T, codebooks] each, as uint16 [B, T, codebooks], zero behind the lengths int32 [B]."""
    lengths = np.array([len(item) for item in items], np.int32)
    codes = np.zeros((len(items), lengths.max(initial=0), codebooks), np.uint16)
    for row, item in zip(codes, items, strict=True):
        row[: len(item)] = item
    return codes, lengths


class Codec(Protocol):
    """Waveform to codes and back."""

    @property
    def info(self) -> CodecInfo:
        """The codec's facts."""

    @property
    def codebooks(self) -> np.ndarray:
        """The vectors that codes stand for, float32 [Q, codebook_size, K]; a frame is the sum over its codebooks."""

    def encode(self, audio: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes a batch.

        Args:
          audio: B waveforms, float32 [samples] in [-1, 1], at `info.sample_rate`; lengths may differ.

        Returns:
          codes uint16 [B, T, Q], zero behind each item's length, and lengths int32 [B] in frames.
        """

    def decode(self, codes: np.ndarray, lengths: np.ndarray | None = None) -> list[np.ndarray]:
        """Decodes codes [B, T, Q] (any integer dtype) to B float32 waveforms at `info.sample_rate`.

        `lengths` int [B] gives each item's frames; without it all T frames are decoded.
        """


class CodecStream(Protocol):
    """Decodes codes as they come, each chunk so that it goes on from the one before."""

    def __call__(self, codes: np.ndarray, ahead: np.ndarray | None = None, *, last: bool = False) -> np.ndarray:
        """The next samples.

        Args:
          codes: [B, T, Q] (any integer dtype); the first chunk has at least 7 frames.
          ahead: [B, A, Q], what will probably follow; a codec whose sound depends on what follows looks at it.
          last: nothing comes after these codes.

        Returns:
          Float32 [B, T * samples per frame].
        """


@runtime_checkable
class StreamingCodec(Codec, Protocol):
    """One that can also decode chunk by chunk."""

    def stream(self) -> CodecStream:
        """A new stream, at its beginning."""
