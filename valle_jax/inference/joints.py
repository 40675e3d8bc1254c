"""Where pieces of speech are joined: silence trimmed to a given pause, and nothing said twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valle_jax.codec.base import CodecInfo

_SILENCE_DECIBELS = 40.0  # below the loudest frame of a piece
_FRAME_SECONDS = 0.01
_FADE_SECONDS = 0.01  # of silence, which stays beside the speech and is faded
_JOINT_SECONDS = 1.5  # on both sides of a joint
_REPEATED_SOUNDS = 8  # in a row: more than two readings of different words have in common


def speech_span(samples: np.ndarray, sample_rate: int) -> tuple[int, int]:
    """Where speech begins and ends in float [samples], as sample indices: what is not 40 dB below the loudest 10 ms."""
    size = round(_FRAME_SECONDS * sample_rate)
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0) / 10 ** (_SILENCE_DECIBELS / 10))
    return (0, 0) if len(loud) == 0 else (int(loud[0]) * size, min((int(loud[-1]) + 1) * size, len(samples)))


class Joiner:
    """Joins pieces of speech as they come, with exactly the pauses between their speech that are asked for.

    What was silent there goes; the first piece keeps what is before its speech.

    Attributes:
      spans: where the speech of each piece begins and ends, in seconds.
      length: of all so far, in samples.
    """

    def __init__(self, sample_rate: int):
        self.spans: list[tuple[float, float]] = []
        self.length = 0
        self._rate = sample_rate
        self._silence = 0  # behind the speech so far, in samples

    def append(self, part: np.ndarray, pause_seconds: float = 0.0, *, trim_end: bool) -> np.ndarray:
        """What comes behind all before: the pause, as far as that is not silent already, and the piece.

        Args:
          part: float32 [samples].
          pause_seconds: before its speech; of no effect with the first piece.
          trim_end: the silence behind its speech goes, too.

        Returns:
          Float32 [samples].
        """
        fade = round(_FADE_SECONDS * self._rate)
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        begin, end = speech_span(part, self._rate)
        padded = np.pad(part, fade)  # its coordinates are moved by a fade
        first, pause = not self.spans, np.zeros(0, np.float32)
        if not first:
            padded[begin : begin + fade] *= ramp
            pause = np.zeros(max(0, round(pause_seconds * self._rate) - self._silence - fade), np.float32)
        if trim_end:
            padded[end + fade : end + 2 * fade] *= ramp[::-1]
        kept = padded[fade if first else begin : end + 2 * fade if trim_end else len(part) + fade]
        lead = begin if first else fade
        start = self.length + len(pause) + lead
        self.spans.append((start / self._rate, (start + end - begin) / self._rate))
        self.length += len(pause) + len(kept)
        self._silence = len(kept) - lead - (end - begin)
        return np.concatenate([pause, kept])


def join(
    parts: Sequence[np.ndarray], pauses: Sequence[float], sample_rate: int
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Pieces of speech, float32 [samples] each, with exactly the pause behind each, in seconds, between their speech.

    What was silent there goes; the first piece keeps what is before its speech, the last one what is behind.

    Returns:
      Float32 [samples], and where the speech of each piece begins and ends in it, in seconds.
    """
    joiner = Joiner(sample_rate)
    before = [0.0, *pauses[: len(parts) - 1]]
    joined = [
        joiner.append(part, pause, trim_end=number < len(parts))
        for number, (part, pause) in enumerate(zip(parts, before, strict=True), 1)
    ]
    return np.concatenate(joined), joiner.spans


def repeats(before: np.ndarray, after: np.ndarray, codec: CodecInfo) -> bool:
    """Whether codes [T, Q] begin with what codes before a joint end with: eight sounds in a row near it on both sides.

    A sound is a run of one code of codebook 1; silence makes few.
    """
    frames = round(_JOINT_SECONDS * codec.frames_per_second)
    ending, beginning = (tuple(_runs(codes[:, 0])) for codes in (before[-frames:], after[:frames]))
    seen = {ending[i : i + _REPEATED_SOUNDS] for i in range(len(ending) - _REPEATED_SOUNDS + 1)}
    return any(beginning[i : i + _REPEATED_SOUNDS] in seen for i in range(len(beginning) - _REPEATED_SOUNDS + 1))


def _runs(codes: np.ndarray) -> list[int]:
    """Codes int [T] with each run of equal ones counted once."""
    return codes[np.flatnonzero(np.diff(codes, prepend=-1))].tolist()
