"""Decoding `mel_rvq` chunk by chunk. Phases are sought, not coded: what was given out stays, the next ones go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from valle_jax.codec.mel_rvq import HOP, WINDOW, griffin_lim, mel_to_magnitude

if TYPE_CHECKING:
    from valle_jax.codec.mel_rvq import MelRVQ

_CONTEXT_FRAMES = 8  # whose samples are held while the phases behind them are sought; a window is 4 frames long


class MelStream:
    """`CodecStream` of `mel_rvq`. The frames ahead of a chunk decide how its last 2 frames sound, and are then cut off.

    A stream of one chunk gives what `MelRVQ.decode` gives.
    """

    def __init__(self, codec: MelRVQ):
        self._codec = codec
        self._rows: list[_Row] | None = None

    def __call__(self, codes: np.ndarray, ahead: np.ndarray | None = None, *, last: bool = False) -> np.ndarray:
        """See `CodecStream`."""
        frames = codes.shape[1]
        self._rows = self._rows or [_Row() for _ in codes]
        whole = codes if ahead is None else np.concatenate([codes, ahead], axis=1)
        magnitudes = (mel_to_magnitude(self._codec.dequantize(item)) for item in whole)
        return np.stack([row.next(m, frames) for row, m in zip(self._rows, magnitudes, strict=True)])


class _Row:
    """One utterance: the magnitudes [K, bins] and samples [K * HOP] of its last frames, and how it seemed to go on."""

    def __init__(self) -> None:
        self._magnitude = np.zeros((0, WINDOW // 2 + 1), np.float32)
        self._samples = np.zeros(0, np.float32)
        self._guess = np.zeros(0, np.float32)

    def next(self, magnitude: np.ndarray, frames: int) -> np.ndarray:
        """The samples of the first `frames` of magnitudes [T, bins]."""
        known = len(self._samples)
        samples = griffin_lim(np.concatenate([self._magnitude, magnitude]), self._samples)
        end = known + frames * HOP
        # Phases that were sought twice are not quite the same: the seam is a fade from what the last chunk led to.
        seam = slice(known, min(known + len(self._guess), end))
        fade = np.linspace(0, 1, len(self._guess), dtype=np.float32)[: seam.stop - seam.start]
        samples[seam] = fade * samples[seam] + (1 - fade) * self._guess[: len(fade)]
        self._guess = samples[end : end + HOP]
        self._magnitude = np.concatenate([self._magnitude, magnitude[:frames]])[-_CONTEXT_FRAMES:]
        self._samples = samples[:end][-_CONTEXT_FRAMES * HOP :]
        return samples[known:end]
