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

from data_prep.sources import Recording
from valle_jax.errors import UserError

_HASH_RANGE = 2**64


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Which split a recording without one of its own belongs to: a pure function of its ids and the seed."""

    seed: int
    held_out_speakers: frozenset[str]
    utterance_limit: int  # utterances whose hash is below are validation

    def split(self, recording: Recording) -> str:
        """One of `valle_jax.data.schema.SPLITS`."""
        if recording.split:
            return recording.split
        if recording.speaker_id in self.held_out_speakers:
            return "valid_speaker"
        held_out = _hash(self.seed, "utterance", recording.utterance_id) < self.utterance_limit
        return "valid_utterance" if held_out else "train"


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

    options: dict[str, str | int | float]
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
        splitter = {**dataclasses.asdict(self.splitter), "held_out_speakers": sorted(self.splitter.held_out_speakers)}
        write_json(path, {**dataclasses.asdict(self), "splitter": splitter})

    def check_resumable(self, path: str | os.PathLike) -> None:
        """Raises UserError unless the plan at `path`, made by an earlier run, is this one."""
        with open(path, encoding="utf-8") as file:
            earlier = json.load(file)
        folder = os.path.dirname(path)
        for name, value in self.options.items():
            before = earlier["options"].get(name)
            if before != value:
                raise UserError(
                    f"{folder} was begun with {name}={before!r} but this run asks for {name}={value!r}; "
                    "use the same options or another --out"
                )
        if earlier["listing_hash"] != self.listing_hash:
            raise UserError(
                f"{folder} was begun from a source of {earlier['n_recordings']} recordings, but this source, of "
                f"{self.n_recordings}, is not the same; use the same source or another --out"
            )


def make_plan(
    recordings: Iterable[Recording],
    options: dict[str, str | int | float],
    *,
    shard_utterances: int,
    valid_utterances: float,
    valid_speakers: float,
    seed: int,
) -> Plan:
    """Plans shards of at most `shard_utterances` recordings and the splits, in one pass.

    `valid_speakers` and `valid_utterances` are the shares of speakers, and of the other speakers' utterances, that are
    held out: at least one where the share is not zero, and never all. Recordings that name their split are not counted.
    Memory grows with the number of speakers, not of recordings.

    Raises:
      UserError: no recordings.
    """
    listing = hashlib.sha256()
    n_recordings = 0
    # Per speaker the lowest and the highest hash of its utterances: who is held out is known at the end only.
    hash_range: dict[str, tuple[int, int]] = {}
    for recording in recordings:
        n_recordings += 1
        listing.update(json.dumps(_identity(recording)).encode())
        if recording.split is None:
            value = _hash(seed, "utterance", recording.utterance_id)
            low, high = hash_range.get(recording.speaker_id, (value, value))
            hash_range[recording.speaker_id] = min(low, value), max(high, value)
    if n_recordings == 0:
        raise UserError("the source lists no recordings")

    by_hash = sorted(hash_range, key=lambda speaker: (_hash(seed, "speaker", speaker), speaker))
    held_out = frozenset(by_hash[: _count(valid_speakers, len(by_hash))])
    ranges = [hash_range[speaker] for speaker in by_hash if speaker not in held_out]
    limit = 0
    if valid_utterances > 0 and ranges:
        limit = max(int(valid_utterances * _HASH_RANGE), min(low for low, _ in ranges) + 1)
        limit = min(limit, max(high for _, high in ranges))
    n_shards = -(-n_recordings // shard_utterances)
    return Plan(options, n_recordings, listing.hexdigest(), n_shards, Splitter(seed, held_out, limit))


def write_json(path: str | os.PathLike, value: dict) -> None:
    """Writes a JSON file under a temporary name and renames it."""
    temporary = pathlib.Path(f"{os.fspath(path)}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _identity(recording: Recording) -> list[str | None]:
    """What makes a recording the same one, wherever its audio lies."""
    names = ("utterance_id", "speaker_id", "text", "source", "language", "split")
    return [getattr(recording, name) for name in names]


def _count(share: float, total: int) -> int:
    """`share` of `total`, at least one (where the share is not zero) and not all."""
    return min(max(round(share * total), 1), total - 1) if share > 0 and total else 0


def _hash(seed: int, kind: str, name: str) -> int:
    """A 64-bit hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {kind} {name}".encode(), digest_size=8).digest(), "big")
