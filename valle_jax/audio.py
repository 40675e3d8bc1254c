"""Waveforms: read, write, resample. Everywhere else audio is mono float32 [samples] in [-1, 1]."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from valle_jax.errors import UserError

WRITABLE = (".wav", ".flac", ".ogg")


def read_audio(
    path: str | os.PathLike | BinaryIO,
    sample_rate: int,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Reads a recording (wav, flac, ogg, mp3, opus, …: what libsndfile knows) as mono float32 [samples].

    Channels are averaged, then the result is resampled to `sample_rate` (Hz). An empty recording gives an empty array.

    Args:
      path: a file, or an open one that can seek.
      sample_rate: of the result.
      start_seconds, end_seconds: the part to read; None: to the end. What lies behind the end is not there.
      name: what to call the recording in errors; default: its path.

    Raises:
      UserError: the file cannot be read as audio, or holds NaN or infinite samples.
    """
    name = name or str(path)
    if isinstance(path, str | os.PathLike) and not os.path.exists(path):  # libsndfile says "System error"
        raise UserError(f"cannot read audio {name}: no such file")
    try:
        with soundfile.SoundFile(path) as file:
            file_rate = file.samplerate
            start = min(round(start_seconds * file_rate), file.frames)
            if start:
                file.seek(start)
            frames = -1 if end_seconds is None else max(round(end_seconds * file_rate) - start, 0)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise UserError(f"cannot read audio {name}: {str(reason).strip().rstrip('.')}") from None
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise UserError(f"audio {name} holds NaN or infinite samples; write it again from its source")
    return resample(mono, file_rate, sample_rate)


def write_audio(path: str | os.PathLike, samples: np.ndarray, sample_rate: int) -> None:
    """Writes mono float [samples] in 16 bits (ogg: Vorbis); the suffix (.wav, .flac, .ogg) names the format.

    Samples outside [-1, 1] are clipped.

    Raises:
      UserError: another suffix, or the file cannot be written.
    """
    with audio_writer(path, sample_rate) as append:
        append(samples)


@contextlib.contextmanager
def audio_writer(path: str | os.PathLike, sample_rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """`write_audio` piece by piece: gives a function that appends float [samples] and writes them through."""
    check_writable(path)
    try:
        with soundfile.SoundFile(path, "w", sample_rate, 1) as file:

            def append(samples: np.ndarray) -> None:
                file.write(np.clip(np.asarray(samples, np.float32), -1, 1))
                file.flush()

            yield append
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"cannot write audio {os.fspath(path)}: {str(error).rstrip('.')}") from None


def check_writable(path: str | os.PathLike) -> None:
    """UserError where `write_audio` could not write: what takes long asks before it begins."""
    if pathlib.Path(path).suffix.lower() not in WRITABLE:
        raise UserError(f"cannot write audio {os.fspath(path)}: the suffix must be one of {', '.join(WRITABLE)}")
    if not pathlib.Path(path).parent.is_dir():
        raise UserError(f"cannot write audio {os.fspath(path)}: no such folder")


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Float [samples] at `from_rate` (Hz) as float32 at `to_rate`; the same array where the rates agree."""
    samples = np.asarray(samples, np.float32)
    if from_rate == to_rate or samples.size == 0:
        return samples
    return soxr.resample(samples, from_rate, to_rate)
