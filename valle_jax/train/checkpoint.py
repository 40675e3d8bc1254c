"""Checkpoints: the only file that knows Orbax.

`WORKDIR/checkpoints/STEP/` holds the items `params`, `opt_state`, `ema_params` (where there is an average) and `run`, a
small JSON with the progress. Orbax writes under a temporary name and renames, so a kill leaves either a whole
checkpoint or a temporary folder that the next start removes. Object stores know no renaming: there `commit_success.txt`
comes last.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pathlib
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from valle_jax import storage
from valle_jax.config import Config
from valle_jax.errors import UserError
from valle_jax.model import Params, build
from valle_jax.train.state import TrainState

_METRIC = "valid_loss"

# Orbax warns about options of its own that it derives from the others.
logging.getLogger("absl").setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is, and of what it is a run.

    Attributes:
      step: batches consumed.
      rows: packed rows consumed, from which the stream goes on.
      identity: what a resumed run must share with it: the model's configuration, the row length, the data.
      nonfinite: steps that were not applied because of a non-finite loss or gradient.
    """

    step: int
    rows: int
    identity: dict[str, Any]
    nonfinite: int = 0


def _folder(workdir: str | pathlib.Path) -> epath.Path:
    return storage.work_path(workdir) / "checkpoints"


def _is_complete(folder: epath.Path) -> bool:
    """Whether Orbax has committed this step: its metadata carries the time of the commit, and the items are there."""
    if storage.is_remote(folder) and not (folder / "commit_success.txt").is_file():
        return False
    try:
        metadata = json.loads((folder / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    items = (folder / "params" / "_METADATA", folder / "opt_state" / "_METADATA", folder / "run" / "metadata")
    return metadata.get("commit_timestamp_nsecs") is not None and all(item.is_file() for item in items)


def complete_steps(workdir: str | pathlib.Path) -> list[int]:
    """Steps with a complete checkpoint, ascending."""
    return _complete_steps(_folder(workdir))


def _complete_steps(folder: epath.Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and _is_complete(path))


def _remove_incomplete(folder: epath.Path) -> None:
    """Deletes the step folders that were never completed, such as those of an interrupted copy."""
    if jax.process_index() == 0 and folder.is_dir():
        for path in folder.iterdir():
            if path.name.isdecimal() and not _is_complete(path):
                logging.getLogger(__name__).warning("removing the incomplete checkpoint %s", path)
                path.rmtree()
    multihost_utils.sync_global_devices("valle incomplete checkpoints removed")


def _manager(folder: epath.Path, *, keep: int = 1, read_only: bool = False) -> ocp.CheckpointManager:
    best = checkpoint_managers.BestN(
        get_metric_fn=lambda metrics: metrics[_METRIC], reverse=True, n=1, keep_checkpoints_without_metrics=False
    )
    newest = checkpoint_managers.LatestN(keep)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy([newest, best]),
        best_fn=lambda metrics: metrics[_METRIC],  # without it Orbax does not store the metrics
        best_mode="min",
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
    )
    return ocp.CheckpointManager(folder, options=options)


class Checkpoints:
    """Saves in the background; keeps the newest few and the best by validation loss."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int):
        self._folder = _folder(workdir)
        _remove_incomplete(self._folder)
        self._manager = _manager(self._folder, keep=keep)

    def save(self, state: TrainState, progress: Progress, valid_loss: float | None = None) -> None:
        """Copies the state off the devices and writes it in the background; does nothing if the step is saved.

        `valid_loss` makes the checkpoint a candidate for the best one.
        """
        if progress.step in self._manager.all_steps():
            return
        items = {"params": ocp.args.StandardSave(state.params), "opt_state": ocp.args.StandardSave(state.opt_state)}
        if state.ema_params is not None:
            items["ema_params"] = ocp.args.StandardSave(state.ema_params)
        metrics = {_METRIC: valid_loss} if valid_loss is not None and math.isfinite(valid_loss) else None
        args = ocp.args.Composite(**items, run=ocp.args.JsonSave(dataclasses.asdict(progress)))
        self._manager.save(progress.step, args=args, metrics=metrics, force=True)

    def progress(self) -> Progress | None:
        """Of the newest complete checkpoint, or None where there is none; all hosts go by what the first one sees."""
        newest = max(_complete_steps(self._folder), default=-1)
        newest = int(multihost_utils.broadcast_one_to_all(np.asarray(newest, np.int32)))
        if newest < 0:
            return None
        run = self._manager.restore(newest, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
        return Progress(**run)

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state of a step, placed as `abstract` says, whatever mesh it was saved from.

        Where the run that saved it kept no average but this one wants one, the average starts from the parameters.
        """
        has_average = (self._folder / str(step) / "ema_params").is_dir()
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "opt_state": ocp.args.StandardRestore(abstract.opt_state),
        }
        if abstract.ema_params is not None:
            # From the parameters' item, a second time: the two must not share buffers, as the state is donated.
            items["ema_params"] = ocp.args.StandardRestore(abstract.ema_params)
        restored = {}
        for name, args in items.items():
            source = "params" if name == "ema_params" and not has_average else name
            restored[name] = self._manager.restore(step, args=ocp.args.Composite(**{source: args}))[source]
        step_array = jax.device_put(np.asarray(step, np.int32), abstract.step.sharding)
        return TrainState(step_array, restored["params"], restored["opt_state"], restored.get("ema_params"))

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go."""
        self._manager.close()


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What `valle export` needs of a work directory; `params` are nested dicts of float32 numpy arrays."""

    config: Config
    params: Params
    vocabulary: dict[str, Any]
    codec: dict[str, Any]
    step: int


def load_params(
    workdir: str | pathlib.Path, which: Literal["best", "latest"] = "best", *, ema: bool = True
) -> TrainedRun:
    """Reads the parameters of a run.

    Args:
      workdir: of `valle train`.
      which: the checkpoint with the best validation loss (the newest, where none was validated), or the newest.
      ema: take the moving average where the run kept one.

    Raises:
      UserError: not a work directory, or it has no complete checkpoint.
    """
    folder = _folder(workdir)
    files = storage.folder(workdir)

    def read(name: str) -> dict[str, Any]:
        try:
            return json.loads(files.read(name))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{workdir} is not a work directory of `valle train`: {name} is missing") from None

    config = Config.from_json(read("config.json"))
    steps = _complete_steps(folder)
    if not steps:
        raise UserError(f"{workdir} has no complete checkpoint; train at least train.checkpoint_every steps")
    step = steps[-1]
    if which == "best":
        with _manager(folder, read_only=True) as manager:
            step = manager.best_step() or step
    items = folder / str(step)
    item = items / "ema_params" if ema and (items / "ema_params").is_dir() else items / "params"
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one_device),
        build(config.model).abstract_params,
    )
    with ocp.StandardCheckpointer() as checkpointer:
        params = jax.tree.map(np.asarray, checkpointer.restore(item, target))
    return TrainedRun(config, params, read("vocabulary.json"), read("codec.json"), step)
