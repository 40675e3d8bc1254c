"""One shard of a dataset, from recordings to records: the unit of parallel work and of what a kill can lose."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile

from data_prep.plan import write_json
from data_prep.sources import Recording
from valle_jax.audio import read_audio
from valle_jax.codec import Codec, get_codec
from valle_jax.data.dataset import ShardWriter, shard_is_complete
from valle_jax.data.schema import Utterance
from valle_jax.errors import UserError
from valle_jax.text.phonemizer import Phonemizer
from valle_jax.text.vocabulary import Vocabulary

REPORTS = "reports"  # folder of the shards' reports, inside the dataset
SILENT_PEAK = 1e-3  # -60 dBFS: recordings that never get louder are silence
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
      vocabulary: of the dataset.
      min_seconds, max_seconds: durations kept.
    """

    folder: str
    shard: int
    n_shards: int
    recordings: tuple[Recording, ...]
    splits: tuple[str, ...]
    codec: str
    codec_weights: str | None
    language: str
    vocabulary: Vocabulary
    min_seconds: float
    max_seconds: float


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Why a recording is not used: a reason that can be counted, and what is known of this recording."""

    reason: str
    detail: str


@dataclasses.dataclass
class ShardReport:
    """What became of a shard's recordings; kept in the dataset, so that dataset.json can be made from all of them."""

    utterances: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # per split
    frames: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # per split
    phonemes: int = 0
    speaker_frames: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unknown_symbols: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    rejected: list[dict[str, str]] = dataclasses.field(default_factory=list)  # lines of rejected.jsonl

    @staticmethod
    def path(folder: str | os.PathLike, shard: int, n_shards: int) -> pathlib.Path:
        """Where the report of a shard is kept."""
        return pathlib.Path(folder) / REPORTS / f"{shard:05d}-of-{n_shards:05d}.json"

    @classmethod
    def of(cls, folder: str | os.PathLike, shard: int, n_shards: int) -> ShardReport | None:
        """The report of a shard that is complete, else None."""
        path = cls.path(folder, shard, n_shards)
        if not (path.exists() and shard_is_complete(folder, shard, n_shards)):
            return None
        report = cls()
        for name, value in json.loads(path.read_text(encoding="utf-8")).items():
            setattr(report, name, collections.Counter(value) if isinstance(value, dict) else value)
        return report

    def add_counts(self, other: ShardReport) -> None:
        """Adds another report's counts, but not its list of rejected recordings."""
        for name in ("utterances", "frames", "speaker_frames", "unknown_symbols"):
            getattr(self, name).update(getattr(other, name))
        self.phonemes += other.phonemes


def prepare_shard(job: ShardJob) -> ShardReport:
    """Writes a shard, its index and its report."""
    phonemes, rejected = phonemize(job.recordings, job.language)
    codes, without_codes = _encode(job, {i: job.recordings[i] for i in phonemes})
    rejected |= without_codes
    for i, frames in codes.items():
        if len(phonemes[i]) > len(frames):
            rejected[i] = Rejection("too much text", f"{len(phonemes[i])} phonemes for {len(frames)} frames")
    report = ShardReport()
    with ShardWriter(job.folder, job.shard, job.n_shards) as writer:
        for i, (recording, split) in enumerate(zip(job.recordings, job.splits, strict=True)):
            if i in rejected:
                report.rejected.append(
                    {
                        "utterance_id": recording.utterance_id,
                        "audio": recording.source,
                        "reason": rejected[i].reason,
                        "detail": rejected[i].detail,
                    }
                )
                continue
            utterance = Utterance(
                utterance_id=recording.utterance_id,
                speaker_id=recording.speaker_id,
                language=recording.language or job.language,
                text=recording.text,
                phonemes=job.vocabulary.encode(phonemes[i], report.unknown_symbols),
                codes=codes[i],
                source=recording.source,
            )
            writer.write(utterance, split)
            report.utterances[split] += 1
            report.frames[split] += len(utterance.codes)
            report.speaker_frames[recording.speaker_id] += len(utterance.codes)
            report.phonemes += len(utterance.phonemes)
        # Before the shard itself is complete, so that no complete shard lacks its report.
        write_json(ShardReport.path(job.folder, job.shard, job.n_shards), vars(report))
    return report


def phonemize(recordings: tuple[Recording, ...], language: str) -> tuple[dict[int, str], dict[int, Rejection]]:
    """Phonemes of the recordings that have some, by position, and why the others have none.

    One call of the phonemizer per language; `language` is that of recordings that name none.
    """
    phonemes: dict[int, str] = {}
    rejected: dict[int, Rejection] = {}
    by_language: dict[str, list[int]] = {}
    for i, recording in enumerate(recordings):
        if recording.text:
            by_language.setdefault(recording.language or language, []).append(i)
        else:
            rejected[i] = Rejection("no transcript", "the corpus has no text for it")
    for name, members in by_language.items():
        try:
            spoken = _phonemizer(name)([recordings[i].text for i in members])
        except UserError as error:
            rejected |= dict.fromkeys(members, Rejection("unknown language", str(error)))
            continue
        for i, result in zip(members, spoken, strict=True):
            if result:
                phonemes[i] = result
            else:
                rejected[i] = Rejection("no phonemes", f"text {recordings[i].text[:80]!r}")
    return phonemes, rejected


def corpus_vocabulary(recordings: tuple[Recording, ...], language: str) -> Vocabulary:
    """The smallest vocabulary of these recordings' phonemes."""
    return Vocabulary.from_corpus(phonemize(recordings, language)[0].values())


def _encode(job: ShardJob, recordings: dict[int, Recording]) -> tuple[dict[int, np.ndarray], dict[int, Rejection]]:
    """Codes uint16 [T, Q] of the recordings that can be used, by position, and why the others cannot."""
    codec = _codec(job.codec, job.codec_weights)
    encoded: dict[int, np.ndarray] = {}
    rejected: dict[int, Rejection] = {}
    seconds = {i: _header_seconds(recording.audio_path) for i, recording in recordings.items()}
    for members in _batches(seconds, job.max_seconds):
        audio: dict[int, np.ndarray] = {}
        for i in members:
            samples = _read(recordings[i], codec.info.sample_rate, seconds[i], job)
            if isinstance(samples, Rejection):
                rejected[i] = samples
            else:
                audio[i] = samples
        if audio:
            codes, lengths = codec.encode(list(audio.values()))
            encoded |= {i: item[:length] for i, item, length in zip(audio, codes, lengths, strict=True)}
    return encoded, rejected


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


def _header_seconds(path: str) -> float:
    """Duration by the file's header; 0 where it cannot be read (reading it will say why)."""
    try:
        return soundfile.info(path).duration
    except (soundfile.LibsndfileError, OSError):
        return 0.0


def _read(recording: Recording, sample_rate: int, header_seconds: float, job: ShardJob) -> np.ndarray | Rejection:
    """Float32 [samples] of a recording at `sample_rate`, or why it is of no use."""
    if header_seconds > job.max_seconds:  # before hours of audio are decoded
        return Rejection("too long", f"{header_seconds:.2f} s, more than {job.max_seconds:g} s")
    try:
        audio = read_audio(recording.audio_path, sample_rate)
    except UserError as error:
        # The message is to be the same wherever the corpus lies.
        return Rejection("unreadable audio", str(error).replace(recording.audio_path, recording.source))
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
    return audio


@functools.cache
def _codec(name: str, weights: str | None) -> Codec:
    return get_codec(name, weights, implementation="torch")


@functools.cache
def _phonemizer(language: str) -> Phonemizer:
    return Phonemizer(language)
