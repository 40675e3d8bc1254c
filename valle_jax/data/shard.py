"""One shard of a dataset: its records and its index, which appear together and complete."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from valle_jax.data import tfrecord
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.storage import temporary_name

COLUMNS: dict[str, type[np.integer]] = {
    "offset": np.int64,
    "size": np.int64,
    "n_phonemes": np.uint16,
    "n_frames": np.int32,
    "speaker": np.uint64,
    "split": np.uint8,
}
"""The columns of an index file, one entry per record: NumPy arrays of these names."""


def shard_name(shard: int, n_shards: int) -> str:
    """The file of a shard's records."""
    return f"data-{shard:05d}-of-{n_shards:05d}.tfrecord"


def index_name(shard: int, n_shards: int) -> str:
    """The file of a shard's index."""
    return f"data-{shard:05d}-of-{n_shards:05d}.index.npz"


def shard_is_complete(folder: str | os.PathLike, shard: int, n_shards: int) -> bool:
    """Whether a `ShardWriter` finished this shard."""
    return all((pathlib.Path(folder) / name(shard, n_shards)).exists() for name in (shard_name, index_name))


def speaker_hash(speaker_id: str) -> int:
    """The number, uint64, that stands for a speaker in the index; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(speaker_id.encode(), digest_size=8).digest(), "little")


def read_records(
    folder: str | os.PathLike, shard: int, n_shards: int, codebooks: int
) -> Iterator[tuple[Utterance, str]]:
    """The utterances of a complete shard of a local folder, in order, and their splits.

    Raises:
      DamagedRecordError: a record is not as it was written.
    """
    with np.load(pathlib.Path(folder) / index_name(shard, n_shards)) as columns:
        rows = list(zip(*(columns[name].tolist() for name in ("offset", "size", "split")), strict=True))
    with open(pathlib.Path(folder) / shard_name(shard, n_shards), "rb") as file:
        for offset, size, split in rows:
            file.seek(offset)
            payload = tfrecord.payload_of(file.read(size + tfrecord.FRAMING_BYTES))
            yield Utterance.from_example(payload, codebooks), SPLITS[split]


class ShardWriter:
    """Writes one shard as a context manager; nothing appears under the final names unless it ends without an exception.

    The index gets its final name first and the records last, so that records under their final name always have the
    index that was written with them, whatever an earlier, killed writer left.
    """

    def __init__(self, folder: str | os.PathLike, shard: int, n_shards: int):
        self._paths = [pathlib.Path(folder) / name(shard, n_shards) for name in (index_name, shard_name)]
        self._columns: dict[str, list[int]] = {name: [] for name in COLUMNS}

    def __enter__(self) -> ShardWriter:
        self._index, self._records = (io.BufferedWriter(io.FileIO(temporary_name(path), "wb")) for path in self._paths)
        return self

    def write(self, utterance: Utterance, split: str) -> None:
        """Appends an utterance to one of `SPLITS`.

        Raises:
          ValueError: unknown split, or an utterance that no index can hold (no phonemes, no frames, too many).
        """
        n_phonemes, n_frames = len(utterance.phonemes), len(utterance.codes)
        if not 0 < n_phonemes <= np.iinfo(COLUMNS["n_phonemes"]).max or n_frames == 0:
            raise ValueError(f"{utterance.utterance_id}: {n_phonemes} phonemes, {n_frames} frames")
        payload = utterance.to_example()
        row = (self._records.tell(), len(payload), n_phonemes, n_frames, speaker_hash(utterance.speaker_id))
        for column, value in zip(self._columns.values(), (*row, SPLITS.index(split)), strict=True):
            column.append(value)
        tfrecord.write_record(self._records, payload)

    def __exit__(self, kind, value, traceback) -> None:
        files = [self._index, self._records]
        if kind is None:
            arrays: dict[str, Any] = {name: np.array(self._columns[name], dtype) for name, dtype in COLUMNS.items()}
            np.savez(self._index, **arrays)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for file, path in zip(files, self._paths, strict=True):
            file.close()
            if kind is None:
                os.replace(file.name, path)
            else:
                os.unlink(file.name)
