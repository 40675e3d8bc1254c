"""The training loop and what is set up before it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from valle_jax.config import Config
from valle_jax.data.dataset import Dataset
from valle_jax.data.info import DatasetInfo
from valle_jax.data.pipeline import TrainBatches, check_compatible, data_identity, rows_per_batch, validation_batches
from valle_jax.errors import UserError, WorkError
from valle_jax.model import Decoder, Params, build
from valle_jax.parallel.distributed import Preemption
from valle_jax.parallel.hosts import HostRows, gather
from valle_jax.parallel.mesh import make_mesh
from valle_jax.parallel.sharding import check_divides
from valle_jax.train.checkpoint import Checkpoints, Progress
from valle_jax.train.codec_start import codec_start
from valle_jax.train.evaluate import VALIDATION_SPLITS, Validation, selection_loss
from valle_jax.train.goodput import Goodput
from valle_jax.train.metrics import MetricsWriter, Throughput
from valle_jax.train.mirror import Mirror
from valle_jax.train.notice import Notice
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.profiler import Profiler
from valle_jax.train.state import TrainState, abstract_state, init_state
from valle_jax.train.step import Metrics, jit_train_step
from valle_jax.train.warm_start import warm_start
from valle_jax.train.watchdog import Watchdog
from valle_jax.train.workdir import check_resumable, identity, write_description

# (step, parameters) -> [(name, float32 samples, samples per second)]: audio of fixed prompts for TensorBoard.
Sampler = Callable[[int, Params], list[tuple[str, np.ndarray, int]]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call of `train` came to.

    Attributes:
      step: batches consumed by the run, over all its starts.
      preempted: whether SIGTERM or the platform's notice, to any process, ended it before its last step.
      nonfinite: steps whose update was refused.
      validation: the last values of the validation splits.
    """

    step: int
    preempted: bool
    nonfinite: int
    validation: dict[str, float]


def resolve(
    config: Config,
    datasets: Sequence[tuple[Dataset, float]],
    mesh: jax.sharding.Mesh,
    plan_dir: pathlib.Path | None = None,
) -> Config:
    """Fills in what the datasets decide (model.n_symbols, codebooks, codebook_size, train.rows) and checks the mesh.

    Raises:
      UserError: the datasets differ in codec or vocabulary, a given size is not the dataset's, or the mesh does not
        divide the model or the rows.
    """
    first, info = datasets[0][0], datasets[0][0].info
    check_compatible(datasets, config)
    sizes: dict[str, Any] = {
        "n_symbols": info.vocabulary.size,
        "codebooks": info.codec.codebooks,
        "codebook_size": info.codec.codebook_size,
    }
    for name, size in sizes.items():
        if getattr(config.model, name) not in (0, size):
            raise UserError(f"model.{name}={getattr(config.model, name)} but dataset {first.path} has {size}")
    if config.model.n_languages:
        raise UserError("model.n_languages belongs to imported models: the input pipeline gives phonemes no language")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    if not config.train.rows:
        multiple = config.train.accumulate * mesh.shape["data"] * mesh.shape["fsdp"]
        rows = rows_per_batch(datasets, config, plan_dir, multiple_of=multiple)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, rows=rows))
    decoder = build(config.model)
    check_divides(mesh, decoder.axes, decoder.abstract_params, config.train.rows // config.train.accumulate)
    return config


def train(
    config: Config,
    datasets: Sequence[tuple[str | pathlib.Path, float]],
    workdir: str | pathlib.Path,
    *,
    mesh: Mapping[str, int] | None = None,
    init_from: str | pathlib.Path | None = None,
    codec_weights: str | None = None,
    make_sampler: Callable[[Config, DatasetInfo], Sampler] | None = None,
    profile_steps: range | None = None,
) -> Summary:
    """Trains one stage until `config.train.steps`, going on from the newest checkpoint in `workdir` if there is one.

    Among several processes (see `valle_jax.parallel.distributed`) each calls it with the same arguments.

    Args:
      config: of the run; sizes that are 0 come from the datasets.
      datasets: directories of `valle prepare`, or their URLs, and their weights in the mix.
      workdir: created if it is not there; a local folder or gs://BUCKET/FOLDER.
      mesh: devices along each mesh axis; None: all on `data`.
      init_from: model directory to start a new run from; without effect on a run that has a checkpoint.
      codec_weights: file of the codec's weights, for `model.code_init=codec`; None: the codec's default.
      make_sampler: called once with the resolved configuration; what it returns makes audio every `train.sample_every`.
      profile_steps: steps whose trace goes to `workdir/profile`, for TensorBoard or Perfetto.

    Raises:
      UserError: see `resolve`, `check_resumable` and `warm_start`; found before the first step and before anything in
        a workdir with a run is changed.
      WorkError: too many steps in a row were not finite.
    """
    preemption = Preemption()
    device_mesh = make_mesh(mesh)
    opened = [(Dataset.open(path), weight) for path, weight in datasets]
    info = opened[0][0].info
    with Mirror(workdir, jax.process_index()) as mirror:
        config = resolve(config, opened, device_mesh, mirror.local / "plans")
        run = _Run(config, opened, workdir, mirror, device_mesh, init_from, codec_weights)
        if make_sampler is not None and config.train.sample_every:
            run.sampler = make_sampler(config, info)
        with run, Watchdog(run.goodput, config.train.hang_seconds), preemption, Notice():
            return run.loop(preemption, profile_steps)


class _Run:
    """One start of a run: everything between the command and the first step, then the steps."""

    def __init__(
        self,
        config: Config,
        datasets: list[tuple[Dataset, float]],
        workdir: str | pathlib.Path,
        mirror: Mirror,
        mesh: jax.sharding.Mesh,
        init_from: str | pathlib.Path | None,
        codec_weights: str | None,
    ):
        self.config, self.mesh = config, mesh
        self.sampler: Sampler | None = None
        self._decoder: Decoder = build(config.model)
        self._optimizer = make_optimizer(config.optimizer, self._decoder.axes)
        self._mirror = mirror
        self.goodput = Goodput(mirror.local, active=jax.process_index() == 0)
        self._checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
        mine = identity(config, data_identity(datasets, config))
        saved = self._checkpoints.progress()
        if saved is not None:
            check_resumable(workdir, saved.identity, mine)
        self.progress = saved or Progress(step=0, rows=0, identity=mine)
        self.goodput.resume(self.progress.step)
        self.state = self._first_state(saved, init_from, datasets[0][0].info, codec_weights)
        if jax.process_index() == 0:
            write_description(mirror.local, config, datasets, mesh, self.progress.step)
        plans = mirror.local / "plans"
        self._rows = HostRows.of(mesh, config.train.rows)
        self._batches = TrainBatches(
            datasets, config, start_row=self.progress.rows, local_rows=self._rows.local.tolist(), plan_dir=plans
        )
        if jax.process_index() == 0:
            print(self._batches.describe(), file=sys.stderr)
        validation_rows = HostRows.of(mesh, config.train.rows // config.train.accumulate)
        splits = {
            split: [
                batch
                for dataset, _ in datasets
                for batch in validation_batches(
                    dataset,
                    config,
                    split,
                    config.train.evaluate_rows,
                    local_rows=validation_rows.local.tolist(),
                    plan_dir=plans,
                )
            ]
            for split in VALIDATION_SPLITS
        }
        self._validate = Validation(self._decoder, validation_rows, splits)
        self._writer = MetricsWriter(mirror.local, resume_step=self.progress.step, active=jax.process_index() == 0)
        self._streak = 0  # steps in a row that were refused
        self._validated: tuple[int, dict[str, float]] = (-1, {})  # step, values

    def _first_state(
        self,
        saved: Progress | None,
        init_from: str | pathlib.Path | None,
        info: DatasetInfo,
        codec_weights: str | None,
    ) -> TrainState:
        """In this order: the newest checkpoint, the model directory, fresh parameters."""
        ema = self.config.optimizer.ema_decay > 0
        if saved is not None:
            return self._checkpoints.restore(
                saved.step, abstract_state(self._decoder, self._optimizer, self.mesh, ema=ema)
            )
        state = init_state(self._decoder, self._optimizer, self.mesh, self.config.train.seed, ema=ema)
        if init_from is not None:
            return warm_start(state, init_from, self.config.model, info)
        if self.config.model.stage == "nar" and self.config.model.code_init == "codec":
            return codec_start(state, info.codec, codec_weights, self.config.train.seed)
        return state

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: Any) -> None:
        self._checkpoints.close()
        self._writer.close()

    def loop(self, preemption: Preemption, profile_steps: range | None) -> Summary:
        """Runs to the last step, or to the one at which a preempted run stops."""
        train, goodput = self.config.train, self.goodput
        step_function = jit_train_step(self.config, self._decoder, self._optimizer, self.mesh)
        key = jax.random.fold_in(jax.random.key(train.seed), 1)  # 0 is the initialisation's
        throughput = Throughput(self._decoder, self.mesh.size)
        profiler = Profiler(self._mirror.local / "profile", profile_steps)
        first = self.progress.step + 1
        with jax.set_mesh(self.mesh), self._progress_bar() as bar, profiler:
            unread: Metrics | None = None
            batches = iter(self._batches) if first <= train.steps else iter(())
            for step in range(first, train.steps + 1):
                goodput.work_on(step)
                profiler.before(step)
                with goodput.during("input"):
                    batch = self._rows.place(next(batches))
                with goodput.during("compile") if step == first else contextlib.nullcontext():
                    self.state, metrics = step_function(self.state, batch, key)
                # The numbers of a step are read when the next one is already on its way, so the device never waits.
                if unread is not None:
                    self._read(step - 1, unread, throughput, bar)
                unread = metrics
                self.progress = dataclasses.replace(self.progress, step=step, rows=self.progress.rows + train.rows)
                stop = preemption.reached(step) and step < train.steps
                last = stop or step == train.steps
                if last or self._is_due(step):
                    self._read(step, unread, throughput, bar)
                    unread = None
                    with throughput.paused():
                        self._pause(step, last=last, preempted=stop)
                if last:
                    break
        return Summary(
            step=self.progress.step,
            preempted=self.progress.step < train.steps,
            nonfinite=self.progress.nonfinite,
            validation=self._validated[1],
        )

    def _progress_bar(self) -> tqdm:
        steps, interval = self.config.train.steps, 0.5 if sys.stderr.isatty() else 30.0
        return tqdm(
            total=steps,
            initial=self.progress.step,
            desc=f"train {self.config.model.stage}",
            unit="step",
            mininterval=interval,
            disable=jax.process_index() != 0,
        )

    def _is_due(self, step: int) -> bool:
        train = self.config.train
        intervals = [train.evaluate_every, train.checkpoint_every, train.sample_every if self.sampler else 0]
        return any(interval and step % interval == 0 for interval in intervals)

    def _read(self, step: int, metrics: Metrics, throughput: Throughput, bar: tqdm) -> None:
        """Waits for a step, counts it, writes its line if one is due; WorkError at the end of patience."""
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        tokens = values["fill"] * self.config.train.rows * self.config.data.row_length
        throughput.add(values["frames"], tokens)
        applied = values["applied"]
        self._streak = 0 if applied else self._streak + 1
        nonfinite = self.progress.nonfinite + (not applied)
        self.progress = dataclasses.replace(self.progress, nonfinite=nonfinite)
        bar.update()
        if step % self.config.train.log_every == 0 or step == self.config.train.steps:
            line = {name: values[name] for name in ("loss", "accuracy_top10", "grad_norm", "learning_rate")}
            line |= throughput.take() | self.goodput.take()
            line |= {"fill": values["fill"], "nonfinite_steps": nonfinite}
            self._writer.scalars(step, line)
            self.goodput.write()
            bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        if self._streak >= self.config.train.max_nonfinite:
            raise WorkError(
                f"the loss or gradient was not finite in {self._streak} steps in a row, up to step {step}; the last "
                "checkpoint before them is kept. Lower optimizer.learning_rate or check the data"
            )

    def _pause(self, step: int, *, last: bool, preempted: bool) -> None:
        """What is done between steps. A preemption leaves time for a checkpoint only."""
        train, during = self.config.train, self.goodput.during
        valid_loss = None
        if not preempted and (last or (train.evaluate_every and step % train.evaluate_every == 0)):
            with during("evaluate"):
                self._validated = step, self._validate(self.state.best_params)
            valid_loss = selection_loss(self._validated[1])
            if self._validated[1]:
                self._writer.scalars(step, self._validated[1])
        # Inside a streak of refused steps the parameters themselves may be the cause, and a checkpoint of them would
        # push out a good one.
        if last or (step % train.checkpoint_every == 0 and not self._streak):
            self.goodput.saved(step)
            with during("checkpoint"):
                self._publish()  # first, as a run that goes on from a checkpoint needs all lines up to its step
                self._checkpoints.save(self.state, self.progress, valid_loss)
                if preempted:
                    self._checkpoints.wait()
        if self.sampler is not None and not preempted and (last or step % train.sample_every == 0):
            with during("samples"):
                params = gather(self.state.best_params, self.mesh)
                if jax.process_index() == 0:
                    for name, samples, sample_rate in self.sampler(step, params):
                        self._writer.audio(step, name, samples, sample_rate)
        self.goodput.write()

    def _publish(self) -> None:
        """Brings what was written so far to where the work directory is."""
        self.goodput.write()
        self._writer.flush()
        self._mirror.upload()
