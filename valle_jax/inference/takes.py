"""What makes a take a bad one, told from its audio: one definition for evaluation and for synthesis."""

from __future__ import annotations

from typing import Any

import numpy as np

from valle_jax.audio import resample
from valle_jax.codec.base import CodecInfo
from valle_jax.codec.mel_rvq import DECIBELS, SAMPLE_RATE, log_mel
from valle_jax.inference.batching import Job, Take

SILENCE = 1e-3  # peak amplitude below which nothing was said
# Seconds per letter of the text. tests/inference/test_takes.py holds these bounds against recordings of
# LibriSpeech and of slow learners (speechocean762): none is too short, and at most 1 in 1,000 is too long.
MIN_LETTER_SECONDS, MAX_LETTER_SECONDS = 0.03, 0.6
MAX_SILENCE_SECONDS = 3.0  # at a stretch; a few recordings have more
_SILENCE_FRAME_SECONDS = 0.02
_SILENCE_DECIBELS = 30.0  # below the loudest frame
MIN_RATIO, MAX_RATIO = 0.5, 2.0  # of the length of a recording of the same text
_LOOP_SECONDS = 1.2  # of audio that equals what came one period before
_LOOP_PERIODS = (0.08, 1.5)  # seconds
_LOOP_DECIBELS = 3.0  # below this, two frames are the same sound
_FRAMES_PER_SECOND = 75


def describe(job: Job, take: Take, samples: np.ndarray, codec: CodecInfo) -> dict[str, Any]:
    """What `Audio.info` says of a take of a job and its float32 [samples], but for the draws that led to it."""
    return {
        "frames": len(take.codes),
        "seconds": len(samples) / codec.sample_rate,
        "finished": take.finished,
        "log_probability": take.log_probability,
        "problems": problems(
            samples,
            codec.sample_rate,
            job.words,
            finished=take.finished,
            seconds_before=len(job.prompt_codes) / codec.frames_per_second if job.continues else 0.0,
        ),
        "unknown_symbols": list(job.unknown),
    }


def problems(
    samples: np.ndarray,
    sample_rate: int,
    text: str | None,
    *,
    finished: bool = True,
    reference_seconds: float | None = None,
    seconds_before: float = 0.0,
) -> list[str]:
    """What is wrong with a take; empty for a good one.

    Args:
      samples: float32 [samples].
      sample_rate: in Hz.
      text: that was to be said; None: without a reference, the length is not judged.
      finished: the decoder ended by its end of speech.
      reference_seconds: length of a recording of the text; None: the length is judged by the letters.
      seconds_before: of speech before the samples that said the beginning of the text.

    Returns:
      Some of `no_end_of_speech`, `silent`, `long_silence`, `too_short`, `too_long`, `loop`.
    """
    found = [] if finished else ["no_end_of_speech"]
    if np.abs(samples).max(initial=0) < SILENCE:
        return [*found, "silent"]
    if longest_silence(samples, sample_rate) > MAX_SILENCE_SECONDS:
        found.append("long_silence")
    seconds = seconds_before + len(samples) / sample_rate
    if reference_seconds is not None:
        shortest, longest = MIN_RATIO * reference_seconds, MAX_RATIO * reference_seconds
    elif text is None:
        shortest, longest = 0.0, np.inf
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


def longest_silence(samples: np.ndarray, sample_rate: int) -> float:
    """Seconds of the longest stretch, at the ends too, that is 30 dB below the loudest 20 ms."""
    size = round(_SILENCE_FRAME_SECONDS * sample_rate)
    power = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0) / 10 ** (_SILENCE_DECIBELS / 10))
    return float(np.diff([-1, *loud, len(power)]).max() - 1) * _SILENCE_FRAME_SECONDS


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
