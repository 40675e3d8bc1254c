"""A complete dataset directory, read at random: TFRecord shards, an index per shard, and dataset.json."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from valle_jax import storage
from valle_jax.data import tfrecord
from valle_jax.data.info import SCHEMA_VERSION, DatasetInfo
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.data.shard import COLUMNS, ShardWriter, index_name, shard_is_complete, shard_name, speaker_hash
from valle_jax.errors import UserError

__all__ = [
    "SCHEMA_VERSION",
    "Dataset",
    "DatasetInfo",
    "Index",
    "ShardWriter",
    "shard_is_complete",
    "shared_speakers",
    "speaker_hash",
]

_INDEXES_AT_ONCE = 32  # read in parallel: an object store takes some 50 ms for each, however small
_SHARD_NAME = re.compile(r"data-(\d{5})-of-(\d{5})\.tfrecord")

_Folder: TypeAlias = storage.LocalFolder | storage.RemoteFolder


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """What is known of every utterance without reading it: 23 bytes each; N utterances in the order of the shards.

    Attributes:
      offset: int64 [N], of the record in its shard.
      n_phonemes: uint16 [N].
      n_frames: int32 [N].
      speaker: uint64 [N], `speaker_hash` of the speaker.
      split: uint8 [N], number in `SPLITS`.
    """

    offset: np.ndarray
    n_phonemes: np.ndarray
    n_frames: np.ndarray
    speaker: np.ndarray
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.offset)


class Dataset:
    """A complete dataset, read at random; threads may share it. Pickled, it is its path.

    Attributes:
      path: the directory; a str where it is a URL.
      info: its dataset.json.
      index: of all utterances.
    """

    def __init__(self, folder: _Folder, info: DatasetInfo, sizes: dict[str, int]):
        """`sizes` are the bytes of each file in the folder."""
        self.path = folder.path
        self.info = info
        self._folder = folder
        self._n_shards = _count_shards(folder, sizes)
        self.index, self._first, self._end = _load_index(folder, info, sizes, self._n_shards)

    @classmethod
    def open(cls, path: str | os.PathLike) -> Dataset:
        """Opens a dataset directory, by its path or URL, and reads its index.

        Raises:
          UserError: not a dataset directory, of another schema version, or shards are missing or do not fit; or an
            object store that cannot be used.
        """
        folder = storage.folder(path)
        return cls(folder, DatasetInfo.load(folder.path), folder.sizes())

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self):
        return Dataset.open, (self.path,)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with dataset.json or any number of the index (not with the records' bytes)."""
        digest = hashlib.sha256(self._folder.read("dataset.json"))
        for field in dataclasses.fields(self.index):
            digest.update(getattr(self.index, field.name).data)
        return digest.hexdigest()[:16]

    def indices(self, split: str) -> np.ndarray:
        """Numbers, int64, of a split's utterances, ascending."""
        return np.flatnonzero(self.index.split == SPLITS.index(split))

    def read(self, i: int) -> Utterance:
        """Reads utterance `i`.

        Raises:
          UserError: its record is damaged; names the shard, the offset and the utterance.
        """
        try:
            return self._read(i)
        except tfrecord.DamagedRecordError as error:
            raise UserError(
                f"{self.describe(i)} is damaged: {error}; delete its shard and its index and prepare the dataset again "
                "(`valle inspect --verify` lists all damage)"
            ) from None

    def describe(self, i: int) -> str:
        """Where utterance `i` is: shard, offset, and its id where that can be read."""
        shard, _, _ = self._locate(i)
        try:
            record = self._record(i)[12:-4]
            name = f"utterance {Utterance.from_example(record, self.info.codec.codebooks).utterance_id!r}"
        except (ValueError, OSError):
            name = "utterance of unknown id"
        path, number = f"{self.path}/{shard_name(shard, self._n_shards)}", i - self._first[shard]
        return f"{path}: record {number} at offset {self.index.offset[i]} ({name}, number {i})"

    def verify(self, progress: Callable[[], object] = lambda: None) -> Iterator[str]:
        """Reads every record and yields one line for each problem: checksums, lengths, ranges, totals, speakers.

        `progress` is called before each record.
        """
        codec, n_symbols = self.info.codec, self.info.vocabulary.size
        for i in range(len(self)):
            progress()
            try:
                utterance = self._read(i)
            except tfrecord.DamagedRecordError as error:
                yield f"{self.describe(i)}: {error}"
                continue
            for what, wrong in (
                ("a phoneme id is outside the vocabulary", not _all_below(utterance.phonemes, n_symbols)),
                ("a code is outside the codebook", not _all_below(utterance.codes, codec.codebook_size)),
                ("its speaker is not the index's", speaker_hash(utterance.speaker_id) != self.index.speaker[i]),
            ):
                if wrong:
                    yield f"{self.describe(i)}: {what}"
        for split in ("valid_speaker", "test") if self.info.options.get("test_speakers") else ("valid_speaker",):
            if leaks := len(shared_speakers(self.index.speaker, self.index.split, split)):
                yield f"{self.path}: {leaks} speakers of split {split} are in other splits too"
        counts = {split: int((self.index.split == number).sum()) for number, split in enumerate(SPLITS)}
        if self.info.totals.get("splits", counts) != counts:
            yield f"{self.path}/dataset.json: splits {self.info.totals['splits']} but the index has {counts}"

    def _locate(self, i: int) -> tuple[int, int, int]:
        """Shard, and where in it record `i` starts and ends."""
        if not 0 <= i < len(self):
            raise IndexError(f"utterance {i} of {len(self)}")
        shard = int(np.searchsorted(self._first, i, side="right")) - 1
        end = self._end[shard] if i + 1 == self._first[shard + 1] else self.index.offset[i + 1]
        return shard, int(self.index.offset[i]), int(end)

    def _record(self, i: int) -> bytes:
        shard, start, end = self._locate(i)
        return self._folder.read_range(shard_name(shard, self._n_shards), start, end)

    def _read(self, i: int) -> Utterance:
        try:
            utterance = Utterance.from_example(tfrecord.payload_of(self._record(i)), self.info.codec.codebooks)
        except OSError as error:
            raise tfrecord.DamagedRecordError(error.strerror) from None
        except ValueError as error:
            raise tfrecord.DamagedRecordError(str(error)) from None
        expected = (int(self.index.n_phonemes[i]), int(self.index.n_frames[i]))
        if (len(utterance.phonemes), len(utterance.codes)) != expected:
            raise tfrecord.DamagedRecordError(
                f"it has {len(utterance.phonemes)} phonemes and {len(utterance.codes)} frames, the index says "
                f"{expected[0]} and {expected[1]}"
            )
        return utterance


def shared_speakers(speaker: np.ndarray, split: np.ndarray, held_out: str) -> np.ndarray:
    """Speakers (hashes, uint64) who are in split `held_out` and in another, of utterances as in an index."""
    inside = split == SPLITS.index(held_out)
    return np.intersect1d(speaker[inside], speaker[~inside])


def _all_below(values: np.ndarray, bound: int) -> bool:
    return len(values) > 0 and values.min() >= 0 and values.max() < bound


def _count_shards(folder: _Folder, sizes: dict[str, int]) -> int:
    """How many record files a dataset has; UserError where they are not all there."""
    counts = {int(match[2]) for match in map(_SHARD_NAME.fullmatch, sizes) if match}
    if len(counts) != 1:
        what = "no records" if not counts else "records of several preparations"
        raise UserError(f"{folder.path} holds {what} (data-?????-of-?????.tfrecord); prepare the dataset again")
    n_shards = counts.pop()
    for shard in range(n_shards):
        for name in (shard_name(shard, n_shards), index_name(shard, n_shards)):
            if name not in sizes:
                raise UserError(f"{folder.path} is not complete: {name} is missing; prepare the dataset again")
    return n_shards


def _load_index(
    folder: _Folder, info: DatasetInfo, sizes: dict[str, int], n_shards: int
) -> tuple[Index, np.ndarray, np.ndarray]:
    """The index of all shards, each shard's first utterance (and the total), and the bytes of each shard."""
    names = [field.name for field in dataclasses.fields(Index)]
    index = Index(**{name: np.empty(info.n_utterances, COLUMNS[name]) for name in names})
    first = np.zeros(n_shards + 1, np.int64)
    end = np.zeros(n_shards, np.int64)
    for shard, values in enumerate(_read_indexes(folder, n_shards)):
        ends = values["offset"] + values["size"] + tfrecord.FRAMING_BYTES
        if len(ends):
            end[shard] = ends[-1]
        file = shard_name(shard, n_shards)
        if sizes[file] != end[shard] or not np.array_equal(values["offset"][1:], ends[:-1]):
            raise UserError(
                f"{folder.path}/{file} has {sizes[file]} bytes but its index describes {end[shard]}; "
                "delete both and prepare the dataset again"
            )
        first[shard + 1] = first[shard] + len(ends)
        if first[shard + 1] > len(index):
            break
        for name in names:
            getattr(index, name)[first[shard] : first[shard + 1]] = values[name]
    if first.max() != len(index):
        raise UserError(
            f"{folder.path}/dataset.json speaks of {len(index)} utterances, its shards hold another number; "
            "prepare the dataset again"
        )
    return index, first, end


def _read_indexes(folder: _Folder, n_shards: int) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each shard, in order."""

    def read(name: str) -> dict[str, np.ndarray]:
        try:
            with np.load(io.BytesIO(folder.read(name))) as columns:
                return {column: columns[column] for column in COLUMNS}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(
                f"cannot read {folder.path}/{name}: {error}; delete it and prepare the dataset again"
            ) from None

    names = [index_name(shard, n_shards) for shard in range(n_shards)]
    with concurrent.futures.ThreadPoolExecutor(_INDEXES_AT_ONCE) as pool:
        for start in range(0, n_shards, _INDEXES_AT_ONCE):  # so that memory holds no more than these
            yield from pool.map(read, names[start : start + _INDEXES_AT_ONCE])
