"""The verb `valle merge`: datasets that were made alike become one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import tqdm
import tyro

from data_prep.files import link_or_copy, whole_text
from data_prep.filters import Rejection
from data_prep.shards import ShardReport
from data_prep.summary import Summary, describe_dataset
from valle_jax.data.dataset import Dataset, shared_speakers
from valle_jax.data.schema import SPLITS
from valle_jax.data.shard import ShardWriter, index_name, read_records, shard_name
from valle_jax.data.tfrecord import DamagedRecordError
from valle_jax.errors import UserError, WorkError
from valle_jax.storage import is_remote, temporary_name


@dataclasses.dataclass(frozen=True)
class Merge:
    """Join datasets made with one codec and one vocabulary.

    Shards are linked where the file system can, else copied, in the order of the datasets; nothing is encoded again.

    Example: valle merge datasets/train-clean-100 datasets/train-clean-360 --out datasets/train-clean-460
    """

    folders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Dataset directories, two or more."""
    out: str
    """Dataset directory to write."""
    duplicates: Literal["refuse", "drop"] = "refuse"
    """Utterance ids that are there twice: refuse to merge, or drop all but the first, and list them as rejected."""

    def run(self) -> None:
        """Merges and prints what came out."""
        print(merge(self.folders, self.out, self.duplicates))


def merge(
    folders: Sequence[str], out: str, duplicates: Literal["refuse", "drop"] = "refuse", progress: bool = True
) -> Summary:
    """Merges datasets; `out` appears when it is complete.

    Raises:
      UserError: fewer than two datasets, URLs, an `out` that is there, datasets not made alike, a speaker held out in
        one and trained on in another, or utterance ids that are there twice.
      WorkError: a damaged record, or files that cannot be written.
    """
    if len(folders) < 2 or any(map(is_remote, (*folders, out))):
        raise UserError("give two or more local dataset directories and a local --out")
    target = pathlib.Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--out {out} is there already; choose another")
    datasets = [Dataset.open(folder) for folder in folders]
    _check_alike(datasets)
    parts = [(d, s, n) for d in datasets for n in [_count_shards(d)] for s in range(n)]
    try:
        dropped = _duplicates(parts, duplicates, progress)
        building = pathlib.Path(temporary_name(target))
        building.mkdir(parents=True)
        try:
            _write(datasets, parts, dropped, building)
            os.replace(building, target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except DamagedRecordError as error:
        raise WorkError(f"a record is damaged ({error}); `valle inspect --verify` lists all damage") from None
    except OSError as error:
        raise WorkError(f"cannot write {out}: {error.strerror or error}") from None
    return Summary.of(target)


def _check_alike(datasets: Sequence[Dataset]) -> None:
    """Raises UserError naming what differs; what another schema version has is refused when it is opened."""
    first = datasets[0]
    for other in datasets[1:]:
        first.info.codec.check_same(other.info.codec, str(first.path), str(other.path))
        mine, others = first.info.vocabulary, other.info.vocabulary
        if mine != others:
            raise UserError(
                f"{first.path} was made with vocabulary {mine.version} ({mine.size} ids) but {other.path} with "
                f"{others.version} ({others.size} ids); prepare both with one --vocabulary"
            )
        if first.info.aligned != other.info.aligned:
            with_frames, without = (first, other) if first.info.aligned else (other, first)
            raise UserError(
                f"{with_frames.path} was prepared with --align but {without.path} without it; prepare both alike"
            )
    speakers = np.concatenate([dataset.index.speaker for dataset in datasets])
    splits = np.concatenate([dataset.index.split for dataset in datasets])
    if len(leaks := shared_speakers(speakers, splits, "valid_speaker")):
        raise UserError(
            f"{len(leaks)} speakers are in valid_speaker of one of these datasets and in another split of the others; "
            "prepare them with one --split-file"
        )


def _duplicates(
    parts: Sequence[tuple[Dataset, int, int]], duplicates: str, progress: bool
) -> dict[int, dict[int, Rejection]]:
    """The records to drop, by part and number; reads all records, and so also checks them. 16 bytes a record."""
    hashes = []
    for dataset, shard, n_shards in tqdm.tqdm(parts, "ids", unit=" shards", disable=not progress):
        records = read_records(dataset.path, shard, n_shards, dataset.info.codec.codebooks)
        ids = [hashlib.blake2b(utterance.utterance_id.encode(), digest_size=8).digest() for utterance, _ in records]
        hashes.append(np.frombuffer(b"".join(ids), np.uint64))
    every = np.concatenate(hashes)
    first = np.cumsum([0, *map(len, hashes)])
    later = np.ones(len(every), bool)
    later[np.unique(every, return_index=True)[1]] = False
    dropped: dict[int, dict[int, Rejection]] = {}
    for record in np.flatnonzero(later).tolist():
        part = int(np.searchsorted(first, record, side="right")) - 1
        rejection = Rejection("duplicate utterance id", f"of {pathlib.Path(parts[part][0].path).name}")
        dropped.setdefault(part, {})[record - int(first[part])] = rejection
    if dropped and duplicates == "refuse":
        part, numbers = next(iter(dropped.items()))
        dataset, shard, n_shards = parts[part]
        those = list(read_records(dataset.path, shard, n_shards, dataset.info.codec.codebooks))
        raise UserError(
            f"{int(later.sum())} utterance ids are there twice, such as {those[min(numbers)][0].utterance_id!r} of "
            f"{dataset.path}; --duplicates drop keeps the first of each"
        )
    return dropped


def _write(
    datasets: Sequence[Dataset],
    parts: Sequence[tuple[Dataset, int, int]],
    dropped: dict[int, dict[int, Rejection]],
    folder: pathlib.Path,
) -> None:
    """Writes all files of the merged dataset."""
    total = ShardReport()
    for dataset in datasets:
        info, index = dataset.info, dataset.index
        for number, split in enumerate(SPLITS):
            total.utterances[split] += int((index.split == number).sum())
            total.frames[split] += int(index.n_frames[index.split == number].sum(dtype=np.int64))
        total.phonemes += int(index.n_phonemes.sum(dtype=np.int64))
        total.unknown_symbols.update(info.unknown_symbols)
        for speaker, seconds in info.speaker_seconds.items():
            total.speaker_frames[speaker] += round(seconds * info.codec.frames_per_second)
    shard_lengths = []
    for number, (dataset, shard, n_shards) in enumerate(parts):
        source = pathlib.Path(dataset.path)
        if number in dropped:
            records = read_records(source, shard, n_shards, dataset.info.codec.codebooks)
            with ShardWriter(folder, number, len(parts)) as writer:
                for record, (utterance, split) in enumerate(records):
                    if rejection := dropped[number].get(record):
                        total.drop(utterance, split, rejection)
                    else:
                        writer.write(utterance, split)
        else:
            for name in (index_name, shard_name):
                link_or_copy(source / name(shard, n_shards), folder / name(number, len(parts)))
        with np.load(folder / index_name(number, len(parts))) as columns:
            shard_lengths.append(len(columns["offset"]))
    total.speaker_frames = +total.speaker_frames
    with whole_text(folder / "rejected.jsonl") as rejected:
        for dataset in datasets:
            lists = pathlib.Path(dataset.path) / "rejected.jsonl"
            rejected.write(lists.read_text(encoding="utf-8") if lists.exists() else "")
        rejected.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in total.rejected)
    info = datasets[0].info
    options = {"merged": [dataset.info.options for dataset in datasets]}
    versions = {
        name: " | ".join(sorted({dataset.info.versions.get(name, "unknown") for dataset in datasets}))
        for name in sorted({name for dataset in datasets for name in dataset.info.versions})
    }
    describe_dataset(folder, shard_lengths, total, info.codec, info.vocabulary, options, versions, aligned=info.aligned)


def _count_shards(dataset: Dataset) -> int:
    return len(list(pathlib.Path(dataset.path).glob("data-*.tfrecord")))
