"""What a preparation will do, fixed before any work: order of recordings, shards, splits. It is kept as plan.json, so
that a run that was killed goes on with the same plan and one with other options is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from data_prep.files import write_json
from data_prep.sources import Recording
from valle_jax.data.schema import SPLITS
from valle_jax.errors import UserError

_HASH_RANGE = 2**64


CORPUS_SPLITS = {
    "dev-clean": "valid_speaker",
    "dev-other": "valid_speaker",
    "test-clean": "test",
    "test-other": "test",
}
"""Subsets of LibriSpeech (Panayotov et al. 2015, section 4), and of LibriTTS, whose speakers are in no other subset."""


@dataclasses.dataclass(frozen=True)
class GivenSplits:
    """Which recordings have a split that is not drawn.

    Attributes:
      of_speaker: split of each speaker of a given list.
      corpus_splits: whether the subsets in `CORPUS_SPLITS` are what they are called.
    """

    of_speaker: dict[str, str] = dataclasses.field(default_factory=dict)
    corpus_splits: bool = True

    def split(self, recording: Recording) -> str | None:
        """One of `valle_jax.data.schema.SPLITS`, or None: it is drawn."""
        if recording.split or recording.speaker_id in self.of_speaker:
            return recording.split or self.of_speaker[recording.speaker_id]
        folders = recording.source.split("/")[:-1] if self.corpus_splits else []
        return next((CORPUS_SPLITS[folder] for folder in folders if folder in CORPUS_SPLITS), None)


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Which split a recording belongs to: a pure function of its ids and the seed where none is given."""

    seed: int
    valid_speakers: frozenset[str]
    test_speakers: frozenset[str]
    utterance_limit: int  # utterances whose hash is below are validation
    given: GivenSplits = GivenSplits()

    def split(self, recording: Recording) -> str:
        """One of `valle_jax.data.schema.SPLITS`."""
        if given := self.given.split(recording):
            return given
        if recording.speaker_id in self.valid_speakers:
            return "valid_speaker"
        if recording.speaker_id in self.test_speakers:
            return "test"
        held_out = _hash(self.seed, "utterance", recording.utterance_id) < self.utterance_limit
        return "valid_utterance" if held_out else "train"

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        names = ("valid_speakers", "test_speakers")
        return {**dataclasses.asdict(self), **{name: sorted(getattr(self, name)) for name in names}}

    @classmethod
    def from_json(cls, value: dict) -> Splitter:
        """The inverse of `to_json`."""
        speakers = {name: frozenset(value[name]) for name in ("valid_speakers", "test_speakers")}
        return cls(**{**value, **speakers, "given": GivenSplits(**value["given"])})


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of one dataset.

    Attributes:
      options: everything that decides the bytes of the dataset, by the names that the command line has for it.
      n_recordings: recordings listed in the source.
      listing_hash: of all fields of all recordings but their absolute paths, in order.
      n_shards: shards of the dataset.
      splitter: draws the splits.
    """

    options: dict[str, Any]
    n_recordings: int
    listing_hash: str
    n_shards: int
    splitter: Splitter

    def shard_sizes(self) -> list[int]:
        """Recordings per shard, which differ by at most one."""
        size, more = divmod(self.n_recordings, self.n_shards)
        return [size + (shard < more) for shard in range(self.n_shards)]

    def save(self, path: str | os.PathLike) -> None:
        """Writes plan.json at once or not at all."""
        write_json(path, {**dataclasses.asdict(self), "splitter": self.splitter.to_json()})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Plan:
        """Reads plan.json; UserError where it is not one."""
        try:
            value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            return cls(**{**value, "splitter": Splitter.from_json(value["splitter"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {os.fspath(path)}: {error}; choose another --out") from None

    def check_options(self, options: dict, folder: str | os.PathLike) -> None:
        """Raises UserError unless this plan, found in `folder`, was made with these options."""
        for name, value in options.items():
            before = self.options.get(name)
            if before != value:
                raise UserError(
                    f"{os.fspath(folder)} was begun with {name}={before!r} but this run asks for {name}={value!r}; "
                    "use the same options or another --out"
                )

    def check_resumable(self, path: str | os.PathLike) -> None:
        """Raises UserError unless the plan at `path`, made by an earlier run, is this one."""
        earlier, folder = self.load(path), os.path.dirname(path)
        earlier.check_options(self.options, folder)
        if earlier.listing_hash != self.listing_hash:
            raise UserError(
                f"{folder} was begun from a source of {earlier.n_recordings} recordings, but this source, of "
                f"{self.n_recordings}, is not the same; use the same source or another --out"
            )


def make_plan(
    recordings: Iterable[Recording],
    options: dict[str, Any],
    *,
    shard_utterances: int,
    valid_utterances: float,
    valid_speakers: float,
    test_speakers: float = 0.0,
    given: GivenSplits = GivenSplits(),
    seed: int,
) -> Plan:
    """Plans shards of at most `shard_utterances` recordings and the splits, in one pass.

    `valid_speakers`, `test_speakers` and `valid_utterances` are the shares of speakers, and of the other speakers'
    utterances, that are held out: at least one where the share is not zero, and never all. Recordings whose split is
    given are not counted. Memory grows with the number of speakers, not of recordings.

    Raises:
      UserError: no recordings, or given splits that share a speaker although one of them is valid_speaker.
    """
    listing = hashlib.sha256()
    n_recordings = 0
    # Per speaker the lowest and the highest hash of its utterances: who is held out is known at the end only.
    hash_range: dict[str, tuple[int, int]] = {}
    given_to: dict[str, set[str]] = {split: set() for split in SPLITS}
    for recording in recordings:
        n_recordings += 1
        listing.update(json.dumps(_identity(recording)).encode())
        if split := given.split(recording):
            given_to[split].add(recording.speaker_id)
        else:
            value = _hash(seed, "utterance", recording.utterance_id)
            low, high = hash_range.get(recording.speaker_id, (value, value))
            hash_range[recording.speaker_id] = min(low, value), max(high, value)
    if n_recordings == 0:
        raise UserError("the source lists no recordings")
    others = hash_range.keys() | set().union(*(given_to[split] for split in SPLITS if split != "valid_speaker"))
    if leaks := sorted(given_to["valid_speaker"] & others):
        raise UserError(
            f"speaker {leaks[0]!r} is in valid_speaker and has recordings outside of it ({len(leaks)} such speakers); "
            "give all recordings of a speaker, or none, this split"
        )

    drawn = hash_range.keys() - set().union(*given_to.values())  # a speaker who has a given split is not moved
    by_hash = sorted(drawn, key=lambda speaker: (_hash(seed, "speaker", speaker), speaker))
    n_valid = _count(valid_speakers, len(by_hash))
    n_test = _count(test_speakers, len(by_hash) - n_valid)
    valid, test = frozenset(by_hash[:n_valid]), frozenset(by_hash[n_valid : n_valid + n_test])
    ranges = [hash_range[speaker] for speaker in hash_range if speaker not in valid | test]
    limit = 0
    if valid_utterances > 0 and ranges:
        limit = max(int(valid_utterances * _HASH_RANGE), min(low for low, _ in ranges) + 1)
        limit = min(limit, max(high for _, high in ranges))
    n_shards = -(-n_recordings // shard_utterances)
    return Plan(options, n_recordings, listing.hexdigest(), n_shards, Splitter(seed, valid, test, limit, given))


def load_speaker_splits(path: str | os.PathLike) -> dict[str, str]:
    """Splits by speaker from a text file of lines `SPEAKER SPLIT`.

    Raises:
      UserError: the file cannot be read, or a line is not of that form.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --split-file {os.fspath(path)}: {error}") from None
    splits = {}
    for number, line in enumerate(lines, start=1):
        speaker, _, split = line.strip().rpartition(" ")
        if line.strip():
            if not speaker or split not in SPLITS:
                raise UserError(f"{os.fspath(path)}: line {number} is not SPEAKER and one of {', '.join(SPLITS)}")
            splits[speaker.strip()] = split
    return splits


def _identity(recording: Recording) -> list:
    """What makes a recording the same one, wherever its audio lies."""
    names = ("utterance_id", "speaker_id", "text", "source", "language", "split")
    return [*(getattr(recording, name) for name in names), *recording.words]


def _count(share: float, total: int) -> int:
    """`share` of `total`, at least one (where the share is not zero) and not all."""
    return min(max(round(share * total), 1), total - 1) if share > 0 and total else 0


def _hash(seed: int, kind: str, name: str) -> int:
    """A 64-bit hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {kind} {name}".encode(), digest_size=8).digest(), "big")
