"""Where long recordings are cut: at pauses, into pieces of the lengths that VALL-E trains on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from valle_jax.errors import UserError

RATE = 16_000  # Hz, of the audio that is cut
_FRAME_SECONDS = 0.03  # the longest frame of WebRTC's detector
_PAD_SECONDS = 0.15  # of the pause left on either side: the detector is late at weak consonants


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Lengths of pieces in seconds; VALL-E trains on 10 to 20 s (Wang et al. 2023, section 5.1)."""

    shortest: float = 10.0
    """Pieces are longer, but for what stands between long pauses."""
    longest: float = 20.0
    """Pieces are not longer."""
    long_pause: float = 2.0
    """Pauses of so long are always cut at."""
    aggressiveness: int = 2
    """Of the voice activity detector: 0 (hears speech readily) to 3."""

    def __post_init__(self):
        if not 1 <= self.shortest < self.longest:
            raise UserError("--segmentation.shortest must be at least 1 s and below --segmentation.longest")
        if self.long_pause <= 0 or self.aggressiveness not in range(4):
            raise UserError("--segmentation.long-pause must be positive, --segmentation.aggressiveness 0, 1, 2 or 3")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a recording, in seconds; `whole` is False where it had to be cut, or begins, in speech."""

    start: float
    end: float
    whole: bool


def detect_speech(samples: np.ndarray, aggressiveness: int) -> tuple[np.ndarray, float]:
    """Which frames of float [samples] at RATE are speech, bool [frames], and their length in seconds.

    By WebRTC's voice activity detector, which pocketsphinx contains.

    Raises:
      UserError: pocketsphinx is not installed.
    """
    try:
        from pocketsphinx import Vad
    except ImportError:
        raise UserError("pocketsphinx is not installed: pip install 'valle-jax[eval]'") from None
    detector = Vad(aggressiveness, RATE, _FRAME_SECONDS)
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    size = detector.frame_bytes
    speech = [detector.is_speech(pcm[start : start + size]) for start in range(0, len(pcm) - size + 1, size)]
    return np.array(speech, bool), detector.frame_length


def cut(speech: np.ndarray, frame_seconds: float, options: Segmentation) -> list[Piece]:
    """Pieces of audio whose speech bool [frames] is known, in order.

    What stands between long pauses is cut, while it is too long, in the longest pause that leaves a piece of `shortest`
    to `longest`; where there is none, in the last one that leaves a shorter piece; else in speech.
    """
    pad = _PAD_SECONDS / frame_seconds
    shortest, longest = options.shortest / frame_seconds, options.longest / frame_seconds - 2 * pad
    edges = np.flatnonzero(np.diff(np.r_[False, speech, False])).reshape(-1, 2)  # frames where speech starts and ends
    long_pauses = np.flatnonzero(edges[1:, 0] - edges[:-1, 1] >= options.long_pause / frame_seconds)
    groups = np.split(edges, long_pauses + 1)
    raw = [piece for between in groups for piece in _cut_between(between, shortest, longest)]
    limits = [0.0, *((a[1] + b[0]) / 2 for a, b in itertools.pairwise(raw)), float(len(speech))]
    return [
        Piece(
            round(max(start - pad, limits[i]) * frame_seconds, 3),
            round(min(end + pad, limits[i + 1]) * frame_seconds, 3),
            whole,
        )
        for i, (start, end, whole) in enumerate(raw)
    ]


def _cut_between(edges: np.ndarray, shortest: float, longest: float) -> Iterator[tuple[float, float, bool]]:
    """Start, end and `whole` of pieces of stretches of speech, int [n, 2] in frames; all lengths are in frames."""
    if not len(edges):
        return
    ends, pauses = edges[:-1, 1], edges[1:, 0] - edges[:-1, 1]
    start, whole = float(edges[0, 0]), True
    while edges[-1, 1] - start > longest:
        usable = (ends > start) & (ends - start <= longest)
        good = usable & (ends - start >= shortest)
        if usable.any():
            place = np.argmax(np.where(good, pauses, -1)) if good.any() else np.flatnonzero(usable)[-1]
            yield start, float(ends[place]), whole
            start, whole = float(edges[place + 1, 0]), True
        else:  # speech, or music, without any pause
            yield start, start + longest, False
            start, whole = start + longest, False
    yield start, float(edges[-1, 1]), whole
