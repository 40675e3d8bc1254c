"""One shard of a dataset, from recordings to records: the unit of parallel work and of what a kill can lose.

Whoever runs it, on whatever machine, writes the same bytes; a shard that is complete is not done again.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.alignment import phoneme_frames
from data_prep.encoding import Heard, encode, load_codec
from data_prep.files import write_json
from data_prep.filters import Filters, Rejection
from data_prep.jobs import ShardJob
from data_prep.sources import Recording
from data_prep.workers import At
from valle_jax.data.dataset import ShardWriter, shard_is_complete, speaker_hash
from valle_jax.data.schema import Utterance
from valle_jax.errors import UserError
from valle_jax.text.phonemizer import Phonemizer
from valle_jax.text.vocabulary import Vocabulary

REPORTS = "reports"  # folder of the shards' reports, inside the dataset
STAGING = "staging"  # folder of shards that wait for the filters that need the whole corpus


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
            encoded, without_codes = encode(job, [i for i in members if job.recordings[i].text], at)
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


def _compare(n_phonemes: int, heard: Heard, filters: Filters) -> Rejection | None:
    """Why text and audio of such lengths cannot belong together, or are not wanted."""
    if n_phonemes > len(heard.codes):
        return Rejection("too much text", f"{n_phonemes} phonemes for {len(heard.codes)} frames")
    return filters.of_text(n_phonemes, heard.seconds)


def _start_frames(
    job: ShardJob, phonemes: dict[int, str], heard: dict[int, Heard]
) -> tuple[dict[int, np.ndarray], dict[int, Rejection]]:
    """At which frame each phoneme starts, int32 [S], by position, and why that is not known of the others."""
    frames_per_second = load_codec(job.codec, job.codec_weights).info.frames_per_second
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


@functools.cache
def _phonemizer(language: str) -> Phonemizer:
    return Phonemizer(language)
