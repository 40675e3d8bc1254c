"""The audio of a shard: read, judged, encoded, and its words aligned where that is asked for."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from data_prep.filters import SILENT_PEAK, Rejection
from data_prep.jobs import ShardJob
from data_prep.sources import Recording
from data_prep.sources.audio import AudioReader
from data_prep.workers import At
from valle_jax.codec import Codec, get_codec
from valle_jax.errors import UserError
from valle_jax.hearing import alignment
from valle_jax.hearing.recognition import TimedWord

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_SECONDS = 160.0  # audio encoded at a time, padding included: bounds the memory of a worker


@dataclasses.dataclass(frozen=True, eq=False)
class Heard:
    """What became of a recording's audio.

    Attributes:
      codes: uint16 [T, Q].
      seconds: duration.
      content: hash of the samples, 64 bits; 0 where no filter asks for it.
      words: of the text, and when each is said in seconds; () where no one asks for it.
    """

    codes: np.ndarray
    seconds: float
    content: int
    words: tuple[TimedWord, ...] = ()


def encode(job: ShardJob, members: list[int], at: At) -> tuple[dict[int, Heard], dict[int, Rejection]]:
    """The recordings at `members` that can be used, by position, and why the others cannot."""
    codec = load_codec(job.codec, job.codec_weights)
    rate = codec.info.sample_rate
    reader = AudioReader(job.recordings[i] for i in members)
    seconds = {i: reader.seconds(job.recordings[i]) for i in members}
    heard: dict[int, Heard] = {}
    rejected: dict[int, Rejection] = {}
    codes_of: dict[int, np.ndarray] = {}  # by content: copies are encoded once

    def read(batch: list[int]) -> dict[int, np.ndarray | Rejection]:
        return {i: _read(reader, job.recordings[i], rate, seconds[i], job) for i in batch}

    for results in _one_ahead(read, _batches(seconds, job.max_seconds)):
        at(min(results))
        audio = {i: samples for i, samples in results.items() if not isinstance(samples, Rejection)}
        rejected |= {i: result for i, result in results.items() if isinstance(result, Rejection)}
        content = {i: _content(samples) if job.filters.need_the_corpus else 0 for i, samples in audio.items()}
        new = {content[i] or ~i: samples for i, samples in audio.items() if content[i] not in codes_of}
        if new:
            codes, lengths = codec.encode(list(new.values()))
            codes_of |= {key: item[:length] for key, item, length in zip(new, codes, lengths, strict=True)}
        for i, samples in audio.items():
            words: tuple[TimedWord, ...] | Rejection = ()
            if job.align or job.filters.min_alignment is not None:
                at(i)
                words = _align(job, job.recordings[i], samples, rate)
            if isinstance(words, Rejection):
                rejected[i] = words
            else:
                heard[i] = Heard(codes_of[content[i] or ~i], len(samples) / rate, content[i], words)
    return heard, rejected


def _align(
    job: ShardJob, recording: Recording, samples: np.ndarray, sample_rate: int
) -> tuple[TimedWord, ...] | Rejection:
    """When each word of the text is said, in seconds of the samples; why that is not known, or the text not wanted."""
    start = recording.start_seconds or 0.0
    given = tuple((word, max(0.0, begin - start), max(0.0, end - start)) for word, begin, end in recording.words)
    if given and job.filters.min_alignment is None:
        return given
    language = recording.language or job.language
    if language.split("-")[0] != "en":
        return Rejection("no alignment", f"there is a model of English only, not of {language}")
    found = alignment.align(samples, sample_rate, recording.text)
    if found is None:
        return Rejection("no alignment", "the audio cannot be that text")
    return job.filters.of_alignment(found.score) or given or tuple((w.label, w.start, w.end) for w in found.words)


@functools.cache
def load_codec(name: str, weights: str | None) -> Codec:
    """The codec of a preparation; one for all shards of a process."""
    return get_codec(name, weights, implementation="torch")


def _batches(seconds: dict[int, float], max_seconds: float) -> Iterator[list[int]]:
    """Keys sorted by duration, as many at a time as fit into BATCH_SECONDS when padded to the longest."""
    batch: list[int] = []
    for i in sorted(seconds, key=lambda i: (seconds[i], i)):
        if batch and min(seconds[i], max_seconds) * (len(batch) + 1) > BATCH_SECONDS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _one_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order, the next one computed by a thread while one is used."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending: concurrent.futures.Future[Result] | None = None
        for item in items:
            current, pending = pending, pool.submit(function, item)
            if current is not None:
                yield current.result()
        if pending is not None:
            yield pending.result()


def _read(
    reader: AudioReader, recording: Recording, sample_rate: int, header_seconds: float, job: ShardJob
) -> np.ndarray | Rejection:
    """Float32 [samples] of a recording at `sample_rate`, or why it is of no use."""
    if header_seconds > job.max_seconds:  # before hours of audio are decoded
        return Rejection("too long", f"{header_seconds:.2f} s, more than {job.max_seconds:g} s")
    try:
        audio = reader.read(recording, sample_rate)
    except UserError as error:
        return Rejection("unreadable audio", str(error))
    seconds = len(audio) / sample_rate
    if len(audio) == 0:
        return Rejection("empty audio", "no samples")
    if seconds < job.min_seconds:
        return Rejection("too short", f"{seconds:.2f} s, less than {job.min_seconds:g} s")
    if seconds > job.max_seconds:
        return Rejection("too long", f"{seconds:.2f} s, more than {job.max_seconds:g} s")
    peak = float(np.abs(audio).max())
    if peak < SILENT_PEAK:
        return Rejection("silent audio", f"peak {peak:.2g} of full scale")
    return job.filters.of_audio(audio, sample_rate) or audio


def _content(samples: np.ndarray) -> int:
    """A 64-bit hash of the samples, not 0: two of 18 million recordings (60,000 h) share theirs by chance at 1e-5."""
    return int.from_bytes(hashlib.blake2b(samples.tobytes(), digest_size=8).digest(), "little") or 1
