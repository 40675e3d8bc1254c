"""How a command over a corpus begins: which of many tasks this process is, and the plan that they share."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable

import tqdm

from data_prep import listing
from data_prep.plan import Plan
from data_prep.sources import Recording
from valle_jax.errors import UserError


def which_task(index: int | None, count: int | None) -> tuple[int, int]:
    """Which task this process is, of how many: as given, or as SLURM's or Kubernetes' environment says.

    Raises:
      UserError: they are not given together, or do not fit.
    """
    environment = os.environ
    if index is None and "SLURM_ARRAY_TASK_ID" in environment:
        first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{name}", d)) for name, d in (("MIN", 0), ("STEP", 1)))
        index = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
    elif index is None and "JOB_COMPLETION_INDEX" in environment:
        index = int(environment["JOB_COMPLETION_INDEX"])
    if count is None and index is not None:
        count = int(environment.get("SLURM_ARRAY_TASK_COUNT", 0)) or None
    if index is None and count in (None, 1):
        return 0, 1
    if index is None or count is None or not 0 <= index < count:
        raise UserError(
            f"this process is task {index} of {count}: --shard-index (from 0) must be below --num-shards; "
            "--shard-index 0 --num-shards 1 does everything"
        )
    return index, count


def begin(
    folder: pathlib.Path,
    recordings: Iterable[Recording],
    make: Callable[[Iterable[Recording]], Plan],
    *,
    progress: bool,
) -> Plan:
    """Makes a folder with a plan and the listing of its recordings, or checks that the plan that is there is the same.

    Raises:
      UserError: the folder holds something else, or another plan.
    """
    path = folder / "plan.json"
    with _folder(folder), listing.NewListing(folder) as new:
        plan = make(tqdm.tqdm(new.through(recordings), "list", unit=" recordings", leave=False, disable=not progress))
        others = {found.name for found in folder.iterdir() if found.suffix != ".tmp"} - {
            listing.LISTING,
            listing.OFFSETS,
        }
        if path.exists():
            plan.check_resumable(path)
        elif others:
            raise UserError(f"{folder} is not empty and holds no plan.json of an earlier run; choose another --out")
        new.keep(plan.shard_sizes())
        if not path.exists():
            plan.save(path)
    return plan


@contextlib.contextmanager
def _folder(folder: pathlib.Path):
    """Makes a folder, and takes it away again if nothing comes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where it is empty
        raise
