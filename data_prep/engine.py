"""What is done with a plan, by whatever runs it: shards, each by one function, and the end, when all are there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence

import tqdm

from data_prep import listing
from data_prep.isolation import run_isolated
from data_prep.jobs import ShardJob
from data_prep.plan import Splitter
from data_prep.selection import SelectJob, choose_dropped, select_shard
from data_prep.shards import REPORTS, STAGING, ShardReport, corpus_vocabulary, prepare_shard
from data_prep.summary import finish
from data_prep.workers import Worker, WorkerLostError, map_unordered
from valle_jax.codec import CodecInfo
from valle_jax.data.shard import index_name, shard_name
from valle_jax.errors import WorkError
from valle_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Work:
    """The shards of a dataset that is being prepared; small, so that it can be sent to other machines.

    Attributes:
      template: the job of any shard, but for its recordings.
      splitter: of the plan.
      hang_seconds: without progress, after which a worker is given up.
    """

    template: ShardJob
    splitter: Splitter
    hang_seconds: float

    def missing(self, shards: Iterable[int]) -> list[int]:
        """Those that are not complete; lists the folders and reads no report."""
        n_shards = self.template.n_shards
        folder = pathlib.Path(self.template.folder)
        places = [_names(folder), _names(folder / STAGING)]
        reports = _names(folder / REPORTS)

        def is_there(shard: int) -> bool:
            files = {shard_name(shard, n_shards), index_name(shard, n_shards)}
            return ShardReport.path("", shard, n_shards).name in reports and any(files <= place for place in places)

        return [shard for shard in shards if not is_there(shard)]

    def job(self, shard: int) -> ShardJob:
        """The job of one shard."""
        recordings = listing.shard_recordings(self.template.folder, shard)
        splits = tuple(self.splitter.split(recording) for recording in recordings)
        return dataclasses.replace(self.template, shard=shard, recordings=recordings, splits=splits)

    def do(self, worker: Worker, shard: int) -> ShardReport:
        """Prepares one shard, unless another task has. This is what every engine calls."""
        report = ShardReport.of(self.template.folder, shard, self.template.n_shards)
        return report or run_isolated(worker, self.job(shard), prepare_shard, self.hang_seconds)

    def vocabulary(self, worker: Worker, shard: int) -> Vocabulary:
        """The smallest vocabulary of one shard."""
        return run_isolated(worker, self.job(shard), corpus_vocabulary, self.hang_seconds)


def _names(folder: pathlib.Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def run_local(work: Work, shards: Sequence[int], codec: CodecInfo, processes: int, progress: bool) -> None:
    """Prepares shards by processes of this machine."""
    hours, start = 0.0, time.monotonic()
    with tqdm.tqdm(total=len(shards), desc="prepare", unit=" shards", disable=not progress) as bar:
        for report in map_unordered(work.do, shards, processes):
            hours += report.frames.total() / codec.frames_per_second / 3600
            bar.set_postfix_str(f"{hours / (time.monotonic() - start) * 3600:.0f} audio hours/hour", refresh=False)
            bar.update()


def vocabulary_of_all(work: Work, processes: int, progress: bool) -> Vocabulary:
    """The vocabulary of the whole corpus."""
    n_shards = work.template.n_shards
    parts = map_unordered(work.vocabulary, range(n_shards), processes)
    bar = tqdm.tqdm(parts, "symbols", n_shards, unit=" shards", disable=not progress)
    return Vocabulary.from_corpus(symbol for part in bar for symbol in part.symbols)


def finish_dataset(
    work: Work, codec: CodecInfo, vocabulary: Vocabulary, options: dict, processes: int, progress: bool
) -> None:
    """Makes a dataset of complete shards; several processes may do this at the same time.

    Raises:
      WorkError: no recording was usable.
    """
    folder = pathlib.Path(work.template.folder)
    try:
        finish(folder, _final_reports(work, codec, processes, progress), codec, vocabulary, options)
    except FileNotFoundError:
        if not (folder / "dataset.json").exists():  # else another process finished first and has tidied up
            raise
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    listing.remove(folder)
    for place in (folder, folder / REPORTS):
        for left in place.glob("*.tmp"):  # of processes that were killed, or that do what is done
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


def _final_reports(work: Work, codec: CodecInfo, processes: int, progress: bool) -> Iterator[ShardReport]:
    """The reports of all shards in order, after the filters that need the whole corpus."""
    job = work.template
    if not job.filters.need_the_corpus:
        for shard in range(job.n_shards):
            report = ShardReport.of(job.folder, shard, job.n_shards)
            assert report is not None, f"shard {shard} is not complete"
            yield report
        return
    dropped = choose_dropped(job.folder, job.n_shards, job.filters, codec.frames_per_second)
    jobs = [SelectJob(job.folder, s, job.n_shards, why, codec.codebooks) for s, why in enumerate(dropped)]
    select = functools.partial(_select, silent_seconds=work.hang_seconds)
    with tqdm.tqdm(total=job.n_shards, desc="select", unit=" shards", disable=not progress) as bar:
        for _ in map_unordered(select, jobs, processes):
            bar.update()
    for select_job in jobs:
        yield select_shard(select_job)


def _select(worker: Worker, job: SelectJob, silent_seconds: float) -> ShardReport:
    try:
        return worker.call(select_shard, job, silent_seconds)
    except WorkerLostError as error:
        raise WorkError(f"shard {job.shard}: the selection {error}; run the same command again") from None
