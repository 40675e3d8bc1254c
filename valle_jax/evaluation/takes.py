"""What makes a take a bad one, told from its audio: one definition for evaluation and for synthesis."""

from __future__ import annotations

import numpy as np

from valle_jax.audio import resample
from valle_jax.codec.mel_rvq import SAMPLE_RATE, log_mel
from valle_jax.evaluation.spectral import DECIBELS

SILENCE = 1e-3  # peak amplitude below which nothing was said
# Seconds per letter of the text. tests/evaluation/test_takes.py holds these bounds against recordings of
# LibriSpeech and of slow learners (speechocean762): none is too short, and at most 1 in 1,000 is too long.
MIN_LETTER_SECONDS, MAX_LETTER_SECONDS = 0.03, 0.6
MIN_RATIO, MAX_RATIO = 0.5, 2.0  # of the length of a recording of the same text
_LOOP_SECONDS = 1.2  # of audio that equals what came one period before
_LOOP_PERIODS = (0.08, 1.5)  # seconds
_LOOP_DECIBELS = 3.0  # below this, two frames are the same sound
_FRAMES_PER_SECOND = 75


def problems(
    samples: np.ndarray, sample_rate: int, text: str, *, finished: bool = True, reference_seconds: float | None = None
) -> list[str]:
    """What is wrong with a take; empty for a good one.

    Args:
      samples: float32 [samples].
      sample_rate: in Hz.
      text: that was to be said.
      finished: the decoder ended by its end of speech.
      reference_seconds: length of a recording of the text; None: the length is judged by the letters.

    Returns:
      Some of `no_end_of_speech`, `silent`, `too_short`, `too_long`, `loop`.
    """
    found = [] if finished else ["no_end_of_speech"]
    if np.abs(samples).max(initial=0) < SILENCE:
        return [*found, "silent"]
    seconds = len(samples) / sample_rate
    if reference_seconds is not None:
        shortest, longest = MIN_RATIO * reference_seconds, MAX_RATIO * reference_seconds
    else:
        letters = sum(c.isalnum() for c in text)
        shortest, longest = MIN_LETTER_SECONDS * letters, 1 + MAX_LETTER_SECONDS * letters
    if seconds < shortest:
        found.append("too_short")
    if seconds > longest:
        found.append("too_long")
    if has_loop(samples, sample_rate):
        found.append("loop")
    return found


def has_loop(samples: np.ndarray, sample_rate: int) -> bool:
    """Whether 1.2 s on end and at least one whole period repeat what came a period of 0.08 to 1.5 s before."""
    frames = log_mel(resample(samples, sample_rate, SAMPLE_RATE)) * DECIBELS
    level = frames.mean(axis=1)
    loud = level > level.max(initial=-np.inf) - 30  # pauses are alike
    for lag in range(*(round(s * _FRAMES_PER_SECOND) for s in _LOOP_PERIODS)):
        distance = np.sqrt(np.square(frames[lag:] - frames[:-lag]).mean(axis=1))
        length = max(lag, round(_LOOP_SECONDS * _FRAMES_PER_SECOND))
        if len(distance) < length:
            break
        same = np.cumsum(np.pad((distance < _LOOP_DECIBELS) & loud[lag:], (1, 0)))
        if (same[length:] - same[:-length] >= 0.9 * length).any():
            return True
    return False
