"""The recordings of a plan, kept beside it, so that each shard finds its own without listing the corpus again."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_prep.sources import Recording
from valle_jax.storage import temporary_name

LISTING = "listing.jsonl"  # one recording a line, in order
OFFSETS = "listing.npy"  # int64, where in it each shard's lines start, and its end


class NewListing:
    """A listing while the corpus is read; as a context manager, it is gone at the end unless it was kept."""

    def __init__(self, folder: str | os.PathLike):
        """`folder` is the dataset's and exists."""
        self._folder = pathlib.Path(folder)

    def __enter__(self) -> NewListing:
        self._path = temporary_name(self._folder / LISTING)
        self._file = open(self._path, "w", encoding="utf-8")
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def through(self, recordings: Iterable[Recording]) -> Iterator[Recording]:
        """The same recordings, each written down."""
        for recording in recordings:
            self._file.write(json.dumps(vars(recording)) + "\n")
            yield recording

    def keep(self, shard_sizes: Sequence[int]) -> None:
        """Gives the listing its name; the sizes are of shards in order."""
        self._file.close()
        offsets = np.zeros(len(shard_sizes) + 1, np.int64)
        with open(self._path, "rb") as lines:
            for shard, size in enumerate(shard_sizes):
                offsets[shard + 1] = offsets[shard] + sum(len(lines.readline()) for _ in range(size))
        temporary = temporary_name(self._folder / OFFSETS)
        with open(temporary, "wb") as file:
            np.save(file, offsets)
        os.replace(temporary, self._folder / OFFSETS)
        os.replace(self._path, self._folder / LISTING)


def exists(folder: str | os.PathLike) -> bool:
    """Whether a plan's listing is there."""
    return (pathlib.Path(folder) / LISTING).exists()


def shard_recordings(folder: str | os.PathLike, shard: int) -> tuple[Recording, ...]:
    """The recordings of one shard."""
    start, end = (int(offset) for offset in np.load(pathlib.Path(folder) / OFFSETS, mmap_mode="r")[shard : shard + 2])
    with open(pathlib.Path(folder) / LISTING, "rb") as file:
        file.seek(start)
        return tuple(Recording(**json.loads(line)) for line in file.read(end - start).splitlines())


def remove(folder: str | os.PathLike) -> None:
    """Removes the listing: it holds paths of this machine, which a complete dataset does without."""
    for name in (LISTING, OFFSETS):
        (pathlib.Path(folder) / name).unlink(missing_ok=True)
