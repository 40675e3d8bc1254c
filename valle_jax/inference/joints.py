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


def join(
    parts: Sequence[np.ndarray], pauses: Sequence[float], sample_rate: int
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Pieces of speech, float32 [samples] each, with exactly the pause behind each, in seconds, between their speech.

    What was silent there goes; the first piece keeps what is before its speech, the last one what is behind.

    Returns:
      Float32 [samples], and where the speech of each piece begins and ends in it, in seconds.
    """
    fade = round(_FADE_SECONDS * sample_rate)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    joined: list[np.ndarray] = []
    spans = []
    for i, part in enumerate(parts):
        begin, end = speech_span(part, sample_rate)
        first, last = i == 0, i == len(parts) - 1
        padded = np.pad(part, fade)  # its coordinates are moved by a fade
        if not first:
            padded[begin : begin + fade] *= ramp
        if not last:
            padded[end + fade : end + 2 * fade] *= ramp[::-1]
        kept = padded[fade if first else begin : len(part) + fade if last else end + 2 * fade]
        start = sum(map(len, joined)) + (begin if first else fade)
        spans.append((start / sample_rate, (start + end - begin) / sample_rate))
        joined.append(kept)
        if not last:
            joined.append(np.zeros(max(0, round(pauses[i] * sample_rate) - 2 * fade), np.float32))
    return np.concatenate(joined), spans


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
