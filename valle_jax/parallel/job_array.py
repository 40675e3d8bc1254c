"""Work that many independent processes share, as an array of jobs: no process talks to another."""

from __future__ import annotations

import os

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
