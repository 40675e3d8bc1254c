"""One shard of a dataset, from recordings to records: the unit of parallel work and of what a kill can lose.

Whoever runs it, on whatever machine, writes the same bytes; a shard that is complete is not done again.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from data_prep.alignment import phoneme_frames
from data_prep.files import write_json
from data_prep.filters import SILENT_PEAK, Filters, Rejection
from data_prep.sources import Recording
from data_prep.sources.audio import AudioReader
from data_prep.workers import At
from valle_jax.codec import Codec, get_codec
from valle_jax.data.dataset import ShardWriter, shard_is_complete, speaker_hash
from valle_jax.data.schema import Utterance
from valle_jax.errors import UserError
from valle_jax.evaluation import alignment
from valle_jax.evaluation.recognition import TimedWord
from valle_jax.text.phonemizer import Phonemizer
from valle_jax.text.vocabulary import Vocabulary

Item = TypeVar("Item")
Result = TypeVar("Result")

REPORTS = "reports"  # folder of the shards' reports, inside the dataset
STAGING = "staging"  # folder of shards that wait for the filters that need the whole corpus
BATCH_SECONDS = 160.0  # audio encoded at a time, padding included: bounds the memory of a worker


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """All that a worker process needs for one shard.

    Attributes:
      folder: the dataset.
      shard, n_shards: which of how many.
      recordings: of this shard, in order.
      splits: of each recording.
      codec, codec_weights: as `get_codec` takes them.
      language: of recordings that name none.
      vocabulary: of the dataset; None where it is not known yet.
      min_seconds, max_seconds: durations kept.
      filters: that recordings must pass.
      align: whether records say at which frame each phoneme starts.
      careful: recording by recording, each announced before it is touched.
      poison: recordings that are not to be touched, by position, and why.
    """

    folder: str
    shard: int
    n_shards: int
    recordings: tuple[Recording, ...]
    splits: tuple[str, ...]
    codec: str
    codec_weights: str | None
    language: str
    vocabulary: Vocabulary | None
    min_seconds: float
    max_seconds: float
    filters: Filters = Filters()
    align: bool = False
    careful: bool = False
    poison: dict[int, Rejection] = dataclasses.field(default_factory=dict)

    def groups(self) -> list[list[int]]:
        """Positions of the recordings that are done together."""
        members = [i for i in range(len(self.recordings)) if i not in self.poison]
        return [[i] for i in members] if self.careful else [members]


@dataclasses.dataclass
class ShardReport:
    """What became of a shard's recordings; kept in the dataset, so that dataset.json can be made from all of them."""

    utterances: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # per split
    frames: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # per split
    phonemes: int = 0
    speaker_frames: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unknown_symbols: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rejected: list[dict[str, str]] = dataclasses.field(default_factory=list)  # lines of rejected.jsonl
    # For the filters that need the whole corpus, of each record: utterance id, content, frames, speaker hash.
    records: list[list] = dataclasses.field(default_factory=list)

    @staticmethod
    def path(folder: str | os.PathLike, shard: int, n_shards: int) -> pathlib.Path:
        """Where the report of a shard is kept."""
        return pathlib.Path(folder) / REPORTS / f"{shard:05d}-of-{n_shards:05d}.json"

    @classmethod
    def of(cls, folder: str | os.PathLike, shard: int, n_shards: int) -> ShardReport | None:
        """The report of a shard that is complete, or waits for the whole corpus; else None."""
        path = cls.path(folder, shard, n_shards)
        there = any(shard_is_complete(place, shard, n_shards) for place in (folder, pathlib.Path(folder) / STAGING))
        return cls.load(path) if path.exists() and there else None

    @classmethod
    def load(cls, path: pathlib.Path) -> ShardReport:
        """Reads a report."""
        report = cls()
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            setattr(report, name, collections.Counter(value) if isinstance(value, dict) else value)
        return report

    def drop(self, utterance: Utterance, split: str, rejection: Rejection) -> None:
        """Takes away a record that was counted, and lists it as rejected."""
        self.reject(utterance.utterance_id, utterance.source, rejection)
        self.utterances[split] -= 1
        self.frames[split] -= len(utterance.codes)
        self.speaker_frames[utterance.speaker_id] -= len(utterance.codes)
        self.phonemes -= len(utterance.phonemes)

    def reject(self, utterance_id: str, audio: str, rejection: Rejection) -> None:
        """Adds a line of rejected.jsonl."""
        self.rejected.append({"utterance_id": utterance_id, "audio": audio, **dataclasses.asdict(rejection)})

    def add_counts(self, other: ShardReport) -> None:
        """Adds another report's counts, but not its list of rejected recordings."""
        for name in ("utterances", "frames", "speaker_frames", "unknown_symbols"):
            getattr(self, name).update(getattr(other, name))
        self.phonemes += other.phonemes


def prepare_shard(job: ShardJob, at: At = lambda _: None) -> ShardReport:
    """Writes a shard, its index and its report, unless they are complete; `at` is told where it is."""
    report = ShardReport.of(job.folder, job.shard, job.n_shards)
    if report is not None:  # another task, or an attempt that seemed lost, was faster
        return report
    assert job.vocabulary is not None
    phonemes: dict[int, str] = {}
    heard: dict[int, Heard] = {}
    rejected = dict(job.poison)
    for members in job.groups():
        if members:
            at(members[0])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            # espeak and the codec are both outside of Python most of the time.
            spoken = pool.submit(phonemize, job.recordings, job.language, members)
            encoded, without_codes = _encode(job, [i for i in members if job.recordings[i].text], at)
            with_phonemes, without_phonemes = spoken.result()
        heard |= encoded
        phonemes |= with_phonemes
        rejected |= without_codes | without_phonemes
    for i in heard.keys() - rejected.keys():
        if rejection := _compare(len(phonemes[i]), heard[i], job.filters):
            rejected[i] = rejection
    starts: dict[int, np.ndarray] = {}
    if job.align:
        starts, without_starts = _start_frames(job, phonemes, {i: heard[i] for i in heard.keys() - rejected.keys()})
        rejected |= without_starts

    report = ShardReport()
    place = pathlib.Path(job.folder) / (STAGING if job.filters.need_the_corpus else "")
    with ShardWriter(place, job.shard, job.n_shards) as writer:
        for i, (recording, split) in enumerate(zip(job.recordings, job.splits, strict=True)):
            if i in rejected:
                report.reject(recording.utterance_id, recording.source, rejected[i])
                continue
            utterance = Utterance(
                utterance_id=recording.utterance_id,
                speaker_id=recording.speaker_id,
                language=recording.language or job.language,
                text=recording.text,
                phonemes=job.vocabulary.encode(phonemes[i], report.unknown_symbols),
                codes=heard[i].codes,
                source=recording.source,
                phoneme_frames=starts.get(i),
            )
            writer.write(utterance, split)
            report.utterances[split] += 1
            report.frames[split] += len(utterance.codes)
            report.speaker_frames[recording.speaker_id] += len(utterance.codes)
            report.phonemes += len(utterance.phonemes)
            if job.filters.need_the_corpus:
                facts = (utterance.utterance_id, heard[i].content, len(utterance.codes))
                report.records.append([*facts, speaker_hash(utterance.speaker_id)])
        # Before the shard itself is complete, so that no complete shard lacks its report.
        write_json(ShardReport.path(job.folder, job.shard, job.n_shards), vars(report))
    return report


def phonemize(
    recordings: Sequence[Recording], language: str, members: Iterable[int]
) -> tuple[dict[int, str], dict[int, Rejection]]:
    """Phonemes of those of the recordings at `members` that have some, by position, and why the others have none.

    One call of the phonemizer per language; `language` is that of recordings that name none.
    """
    phonemes: dict[int, str] = {}
    rejected: dict[int, Rejection] = {}
    by_language: dict[str, list[int]] = {}
    for i in members:
        if recordings[i].text:
            by_language.setdefault(recordings[i].language or language, []).append(i)
        else:
            rejected[i] = Rejection("no transcript", "the corpus has no text for it")
    for name, those in by_language.items():
        try:
            spoken = _phonemizer(name)([recordings[i].text for i in those])
        except UserError as error:
            rejected |= dict.fromkeys(those, Rejection("unknown language", str(error)))
            continue
        for i, result in zip(those, spoken, strict=True):
            if result:
                phonemes[i] = result
            else:
                rejected[i] = Rejection("no phonemes", f"text {recordings[i].text[:80]!r}")
    return phonemes, rejected


def corpus_vocabulary(job: ShardJob, at: At = lambda _: None) -> Vocabulary:
    """The smallest vocabulary of a shard's phonemes."""
    phonemes: dict[int, str] = {}
    for members in job.groups():
        if members:
            at(members[0])
        phonemes |= phonemize(job.recordings, job.language, members)[0]
    return Vocabulary.from_corpus(phonemes.values())


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


def _compare(n_phonemes: int, heard: Heard, filters: Filters) -> Rejection | None:
    """Why text and audio of such lengths cannot belong together, or are not wanted."""
    if n_phonemes > len(heard.codes):
        return Rejection("too much text", f"{n_phonemes} phonemes for {len(heard.codes)} frames")
    return filters.of_text(n_phonemes, heard.seconds)


def _encode(job: ShardJob, members: list[int], at: At) -> tuple[dict[int, Heard], dict[int, Rejection]]:
    """The recordings at `members` that can be used, by position, and why the others cannot."""
    codec = _codec(job.codec, job.codec_weights)
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


def _start_frames(
    job: ShardJob, phonemes: dict[int, str], heard: dict[int, Heard]
) -> tuple[dict[int, np.ndarray], dict[int, Rejection]]:
    """At which frame each phoneme starts, int32 [S], by position, and why that is not known of the others."""
    frames_per_second = _codec(job.codec, job.codec_weights).info.frames_per_second
    members: dict[str, list[int]] = {}
    for i in sorted(heard):
        members.setdefault(job.recordings[i].language or job.language, []).append(i)
    starts: dict[int, np.ndarray] = {}
    rejected: dict[int, Rejection] = {}
    for language, those in members.items():
        words = sorted({word for i in those for word, _, _ in heard[i].words})
        alone = dict(zip(words, _phonemizer(language)(words), strict=True))
        for i in those:
            found = phoneme_frames(phonemes[i], heard[i].words, alone, frames_per_second, len(heard[i].codes))
            if found is None:
                rejected[i] = Rejection("no alignment", "the words with times are not those of the text")
            else:
                starts[i] = found
    return starts, rejected


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


@functools.cache
def _codec(name: str, weights: str | None) -> Codec:
    return get_codec(name, weights, implementation="torch")


@functools.cache
def _phonemizer(language: str) -> Phonemizer:
    return Phonemizer(language)
