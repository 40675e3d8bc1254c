"""The filters that need the whole corpus: copies of the same audio, and speakers of whom there is too much.

Shards wait in the folder `staging` until all are there. What each of their records is, which the reports say, decides
alone what is dropped, so every process that asks comes to the same answer.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib

import numpy as np

from data_prep.files import link_or_copy, write_json
from data_prep.filters import Filters, Rejection
from data_prep.shards import STAGING, ShardReport
from data_prep.workers import At
from valle_jax.data.shard import ShardWriter, index_name, read_records, shard_is_complete, shard_name


@dataclasses.dataclass(frozen=True)
class SelectJob:
    """One shard that leaves `staging`.

    Attributes:
      folder: the dataset.
      shard, n_shards: which of how many.
      dropped: by number of the record, and why.
      codebooks: of the dataset's codes.
    """

    folder: str
    shard: int
    n_shards: int
    dropped: dict[int, Rejection]
    codebooks: int


def selected_path(folder: str | os.PathLike, shard: int, n_shards: int) -> pathlib.Path:
    """Where the report of a shard without its dropped records is kept."""
    return ShardReport.path(folder, shard, n_shards).with_suffix(".selected.json")


def choose_dropped(
    folder: str | os.PathLike, n_shards: int, filters: Filters, frames_per_second: float
) -> list[dict[int, Rejection]]:
    """The records of each shard that are dropped; memory is some 100 bytes a record of the corpus.

    Of recordings with the same samples the first in the order of the source stays. Of a speaker with more than
    `max_speaker_hours`, utterances stay in the order of their hashes, as many as fit.
    """
    columns = [_facts(ShardReport.load(ShardReport.path(folder, shard, n_shards))) for shard in range(n_shards)]
    first = np.cumsum([0, *(len(shard) for shard in columns)])
    facts = np.concatenate(columns)
    dropped: list[dict[int, Rejection]] = [{} for _ in range(n_shards)]

    def drop(record: int, rejection: Rejection) -> None:
        shard = int(np.searchsorted(first, record, side="right")) - 1
        dropped[shard][record - int(first[shard])] = rejection

    @functools.lru_cache(16)
    def utterance_ids(shard: int) -> list[str]:
        return [record[0] for record in ShardReport.load(ShardReport.path(folder, shard, n_shards)).records]

    kept = np.arange(len(facts))
    if filters.unique_audio:
        _, earliest, inverse = np.unique(facts["content"], return_index=True, return_inverse=True)
        original = earliest[inverse]  # return_index gives the first of each
        for record in np.flatnonzero(original != kept):
            shard = int(np.searchsorted(first, original[record], side="right")) - 1
            name = utterance_ids(shard)[int(original[record] - first[shard])]
            drop(int(record), Rejection("duplicate audio", f"the same samples as {name}"))
        kept = earliest
    if filters.max_speaker_hours is not None:
        kept = np.sort(kept)
        order = kept[np.lexsort((facts["content"][kept], facts["speaker"][kept]))]
        seconds = np.cumsum(facts["frames"][order]) / frames_per_second
        starts = np.flatnonzero(np.diff(facts["speaker"][order], prepend=~facts["speaker"][order][:1]) != 0)
        before = np.repeat(np.append(0, seconds)[starts], np.diff(np.append(starts, len(order))))
        detail = f"of the speaker's utterances, more than {filters.max_speaker_hours:g} h"
        for record in order[seconds - before > filters.max_speaker_hours * 3600]:
            drop(int(record), Rejection("speaker has enough", detail))
    return dropped


def select_shard(job: SelectJob, at: At = lambda _: None) -> ShardReport:
    """Gives a staged shard its final name, without the records that are dropped; returns its report."""
    path = selected_path(job.folder, job.shard, job.n_shards)
    if path.exists() and shard_is_complete(job.folder, job.shard, job.n_shards):
        return ShardReport.load(path)
    report = ShardReport.load(ShardReport.path(job.folder, job.shard, job.n_shards))
    report.records = []
    staging = pathlib.Path(job.folder) / STAGING
    if not job.dropped:
        write_json(path, vars(report))
        for name in (index_name(job.shard, job.n_shards), shard_name(job.shard, job.n_shards)):
            link_or_copy(staging / name, pathlib.Path(job.folder) / name)
        return report
    with ShardWriter(job.folder, job.shard, job.n_shards) as writer:
        for number, (utterance, split) in enumerate(read_records(staging, job.shard, job.n_shards, job.codebooks)):
            if rejection := job.dropped.get(number):
                report.drop(utterance, split, rejection)
            else:
                writer.write(utterance, split)
        report.speaker_frames = +report.speaker_frames  # without speakers of whom nothing is left
        write_json(path, vars(report))
    return report


def _facts(report: ShardReport) -> np.ndarray:
    """What decides about the records of a shard."""
    columns = {"content": np.uint64, "frames": np.int64, "speaker": np.uint64}
    return np.array([tuple(record[1:]) for record in report.records], [*columns.items()])
