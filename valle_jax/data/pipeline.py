"""The stream of training batches, and the validation batches, as pure functions of row numbers.

The rows of all epochs of all datasets form one endless stream. A batch is a slice of it, a host's part a slice of the
batch, so neither hosts nor reader processes change it, and what has been consumed is one number.
"""

from __future__ import annotations

import bisect
import concurrent.futures
import dataclasses
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
from absl import flags

from valle_jax import storage
from valle_jax.config import Config
from valle_jax.data import draws
from valle_jax.data.batch import Batch
from valle_jax.data.dataset import Dataset
from valle_jax.data.examples import Example, RowWriter, empty_batch
from valle_jax.data.mixing import Mixture
from valle_jax.data.packing import Packing, Plan, load_plan, separator
from valle_jax.data.schema import Utterance
from valle_jax.errors import UserError

WeightedDatasets = Sequence[tuple[Dataset, float]]

_ENDLESS = 1 << 48  # batches; Grain wants to know a length
_READER_THREADS = 8  # of one process; they wait for files more than they compute
_REQUESTS = 64  # to an object store at a time, for one batch
_BATCHES_AHEAD = 8  # of one process; with reader processes each holds 2 and shows 1
_VALIDATION_SEED = 0  # validation rows are the same for every run


class RowStream:
    """The rows of one split of a dataset, epoch after epoch. Threads may share it; pickled, it is its arguments."""

    def __init__(
        self, dataset: Dataset, config: Config, split: str, seed: int, plan_dir: str | os.PathLike | None = None
    ):
        self._arguments = (dataset, config, split, seed, plan_dir)
        self._dataset = dataset
        self._lock = threading.Lock()
        self._plans: dict[int, Plan] = {}
        self._ends: list[int] = []  # of the epochs, in rows of the stream
        self.writer = RowWriter(dataset, config)
        self.is_remote = storage.is_remote(dataset.path)

    def __reduce__(self):
        return RowStream, self._arguments

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch; the two used last stay open."""
        with self._lock:
            return self._plan(epoch)

    def examples(self, row: int) -> list[Example]:
        """The examples of a row of the stream."""
        _, _, split, seed, _ = self._arguments
        with self._lock:
            while not self._ends or self._ends[-1] <= row:
                rows = len(self._plan(len(self._ends)))
                assert rows, f"{self._dataset.path}: split {split} has no rows"
                self._ends.append((self._ends or [0])[-1] + rows)
            epoch = bisect.bisect_right(self._ends, row)
            plan = self._plan(epoch)
        place = row - (self._ends[epoch - 1] if epoch else 0)
        return [
            self.writer.example([self._read(record, epoch) for record in records], seed, epoch, records[0])
            for records in plan.row(place)
        ]

    def _read(self, record: int, epoch: int) -> Utterance:
        """An utterance, as much of it as the plan of the epoch has room for."""
        dataset, config, split, seed, _ = self._arguments
        utterance = dataset.read(record)
        if not config.data.crop_max_seconds:
            return utterance
        crops = Packing.of(dataset, config, split, seed, epoch).crops
        return crops.crop(record, utterance, separator(dataset.info.vocabulary))

    def _plan(self, epoch: int) -> Plan:
        if epoch not in self._plans:
            dataset, config, split, seed, plan_dir = self._arguments
            if len(self._plans) == 2:
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = load_plan(dataset, Packing.of(dataset, config, split, seed, epoch), plan_dir)
        return self._plans[epoch]


class TrainBatches:
    """Host-local training batches without end; `valle_jax.data.batch` says what they are.

    Each `iter()` starts at `start_row` again. Rows consumed so far: `start_row` + batches taken × `train.rows`.
    """

    def __init__(
        self,
        datasets: WeightedDatasets,
        config: Config,
        *,
        start_row: int,
        local_rows: Sequence[int] | None = None,
        plan_dir: str | os.PathLike | None,
    ):
        """Plans the first epoch.

        Args:
          datasets: with the share of rows that each has, relative to one another.
          config: `train.rows` rows make a global batch.
          start_row: rows consumed already.
          local_rows: ascending numbers in [0, train.rows): what this host loads of each batch; None: all of it.
          plan_dir: where plans are cached, 7 bytes per utterance and epoch; None: in memory.

        Raises:
          UserError: datasets of different codecs or vocabularies, or a dataset without usable training utterances.
        """
        check_compatible(datasets, config)
        streams = [RowStream(d, config, "train", config.train.seed, plan_dir) for d, _ in datasets]
        self._plans = [_usable_plan(stream, dataset) for stream, (dataset, _) in zip(streams, datasets, strict=True)]
        self._datasets = datasets
        self._config = config
        mixture = Mixture([weight for _, weight in datasets])
        local = tuple(range(config.train.rows) if local_rows is None else map(int, local_rows))
        source = _BatchSource(config, streams, mixture, start_row, local)
        workers = config.data.workers
        options = grain.ReadOptions(num_threads=_READER_THREADS, prefetch_buffer_size=_BATCHES_AHEAD)
        if workers:
            options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
        self._batches = grain.MapDataset.source(source).to_iter_dataset(options)
        if workers:
            flags.FLAGS.mark_as_parsed()  # Grain reads its flags, which a program without absl's main never parses
            self._batches = self._batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def describe(self) -> str:
        """A line for each dataset: rows of the first epoch, their fill, and what is left out."""
        lines = []
        for (dataset, weight), plan in zip(self._datasets, self._plans, strict=True):
            line = f"{dataset.path}: {plan.n_utterances:,} utterances in {len(plan):,} rows of {plan.row_length:,} "
            line += f"tokens an epoch, fill {plan.fill:.1%}"
            if len(self._datasets) > 1:
                line += f", weight {weight:g}"
            if plan.n_skipped:
                line += f"; {plan.n_skipped:,} utterances longer than a row are left out (see data.row_length)"
            lines.append(line)
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _BatchSource:
    """The batches at random, which is what Grain's readers share out."""

    config: Config
    streams: list[RowStream]
    mixture: Mixture
    start_row: int
    local_rows: tuple[int, ...]

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, number: int) -> Batch:
        first = self.start_row + number * self.config.train.rows
        batch = empty_batch(len(self.local_rows), self.config, self.streams[0].writer.codebooks)
        places = [self.mixture[first + local_row] for local_row in self.local_rows]
        for i, examples in enumerate(self._examples(places)):
            row, stream = first + self.local_rows[i], self.streams[places[i][0]]
            if self.config.model.stage == "nar":
                stage_of = first if self.config.data.nar_stage_per == "batch" else row
                drawn = draws.key(self.config.train.seed, "stage")
                batch["stage"][i] = 1 + draws.below(drawn, stage_of, stream.writer.codebooks - 1)
            stream.writer.write(batch, i, examples)
        return batch

    def _examples(self, places: list[tuple[int, int]]) -> Iterator[list[Example]]:
        """The examples of rows (dataset, row of it); side by side where a store takes its time for each record."""

        def read(place: tuple[int, int]) -> list[Example]:
            return self.streams[place[0]].examples(place[1])

        if not any(stream.is_remote for stream in self.streams):
            return map(read, places)
        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            return pool.map(read, places)


def validation_batches(
    dataset: Dataset,
    config: Config,
    split: str,
    max_rows: int,
    *,
    local_rows: Sequence[int] | None = None,
    plan_dir: str | os.PathLike | None = None,
) -> list[Batch]:
    """The host-local batches of a split, the same whatever the run's seed; none where the split is empty.

    A global batch has `train.rows / train.accumulate` rows, as many as training has in memory at a time, the last one
    filled up with padding. The NAR gets each row once per stage, so that its losses per stage are of the same speech.

    Args:
      dataset: whose split it is.
      config: as in training.
      split: one of SPLITS.
      max_rows: at most so many rows in all; for the NAR rounded down to all stages of some rows, but at least one.
      local_rows: ascending numbers in [0, train.rows / train.accumulate): what this host gets of each batch; None: all.
      plan_dir: as for `TrainBatches`.
    """
    rows = config.train.rows // config.train.accumulate
    local = range(rows) if local_rows is None else local_rows
    stream = RowStream(dataset, config, split, _VALIDATION_SEED, plan_dir)
    codebooks = stream.writer.codebooks
    stages = range(1, codebooks) if config.model.stage == "nar" else range(1)
    n_rows = min(len(stream.plan(0)), max(1, max_rows // len(stages)))
    cases = [(row, stage) for row in range(n_rows) for stage in stages]
    batches = []
    for first in range(0, len(cases), rows):
        batch = empty_batch(len(local), config, codebooks)
        for i, local_row in enumerate(local):
            if first + local_row >= len(cases):
                break
            row, stage = cases[first + local_row]
            if config.model.stage == "nar":
                batch["stage"][i] = stage
            stream.writer.write(batch, i, stream.examples(row))
        batches.append(batch)
    return batches


def rows_per_batch(
    datasets: WeightedDatasets, config: Config, plan_dir: str | os.PathLike | None = None, *, multiple_of: int = 1
) -> int:
    """Rows per global batch: `train.rows`, or as many as hold `train.tokens_per_batch` acoustic frames on average.

    The latter are rounded up to a multiple of `multiple_of` (chips that share the batch, accumulation steps).

    Raises:
      UserError: `train.rows` is no such multiple, or as for `TrainBatches`.
    """
    if config.train.rows:
        if config.train.rows % multiple_of:
            raise UserError(f"train.rows={config.train.rows} is not a multiple of {multiple_of}, as the mesh needs it")
        return config.train.rows
    check_compatible(datasets, config)
    total = sum(weight for _, weight in datasets)
    frames_per_row = 0.0
    for dataset, weight in datasets:
        plan = _usable_plan(RowStream(dataset, config, "train", config.train.seed, plan_dir), dataset)
        frames_per_row += weight / total * plan.n_frames / len(plan)
    return multiple_of * math.ceil(config.train.tokens_per_batch / frames_per_row / multiple_of)


def data_identity(datasets: WeightedDatasets, config: Config) -> dict[str, Any]:
    """What decides the stream of rows, as JSON: a run may only be continued with the same."""
    settings = {name: value for name, value in dataclasses.asdict(config.data).items() if name != "workers"}
    return {
        **settings,
        "seed": config.train.seed,
        "datasets": [{"fingerprint": dataset.fingerprint, "weight": weight} for dataset, weight in datasets],
    }


def check_compatible(datasets: WeightedDatasets, config: Config) -> None:
    """UserError, which names both, unless all datasets have one codec and one vocabulary."""
    first, *others = [dataset for dataset, _ in datasets]
    if config.model.stage == "nar" and first.info.codec.codebooks < 2:
        raise UserError(f"{first.path}: codec {first.info.codec.name} has one codebook, so there is no NAR to train")
    for other in others:
        first.info.codec.check_same(other.info.codec, str(first.path), str(other.path))
        first.info.vocabulary.check_same(other.info.vocabulary, str(first.path), str(other.path))


def _usable_plan(stream: RowStream, dataset: Dataset) -> Plan:
    """The first epoch's plan; UserError where it has no rows."""
    plan = stream.plan(0)
    if not len(plan):
        reason = "split train is empty; prepare the dataset with fewer held out"
        if plan.n_skipped:
            reason = f"all {plan.n_skipped} are longer than data.row_length={plan.row_length}; raise it"
        raise UserError(f"{dataset.path} has no usable training utterances: {reason}")
    return plan
