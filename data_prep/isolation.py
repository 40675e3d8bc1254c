"""How one recording that kills its worker, or never comes back, costs itself and not its shard.

A shard whose worker is lost is done again carefully: recording by recording, each announced before it is touched. A
recording that costs two workers is rejected, and the shard is done without it. So an innocent recording survives a
worker that something else killed. Errors of the operating system, which come and go on network file systems, are waited
for.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from data_prep.filters import Rejection
from data_prep.workers import At, Worker, WorkerLostError
from valle_jax.errors import WorkError


class Isolatable(Protocol):
    """A dataclass: the job of a shard.

    Attributes:
      shard: its number.
      careful: recording by recording, each announced before it is touched.
      poison: recordings that are not to be touched, by position, and why.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def shard(self) -> int: ...
    @property
    def careful(self) -> bool: ...
    @property
    def poison(self) -> dict[int, Rejection]: ...


Job = TypeVar("Job", bound=Isolatable)
Result = TypeVar("Result")

TRIES = 4  # of a shard whose worker is lost for no recording's sake, or that meets errors of the operating system
STRIKES = 2  # workers that a recording may cost


def run_isolated(worker: Worker, job: Job, function: Callable[[Job, At], Result], hang_seconds: float) -> Result:
    """The result of `function` over a shard, without the recordings that it cannot do.

    Raises:
      WorkError: it fails without any recording's fault, again and again.
    """
    lost_at: collections.Counter[int] = collections.Counter()
    failures = 0
    while True:
        try:
            return worker.call(function, job, hang_seconds)
        except (OSError, WorkerLostError) as error:
            if isinstance(error, WorkerLostError) and job.careful and error.at is not None:
                lost_at[error.at] += 1
                if lost_at[error.at] == STRIKES:
                    poison = {**job.poison, error.at: Rejection(error.reason, error.detail)}
                    job = dataclasses.replace(job, poison=poison)
                continue
            failures += 1
            if failures == TRIES:
                raise WorkError(
                    f"shard {job.shard} failed {TRIES} times, the last time because it {error}; what is complete is "
                    "kept: run the same command again, perhaps with fewer --processes"
                    if isinstance(error, WorkerLostError)
                    else f"shard {job.shard} failed {TRIES} times: {error}; what is complete is kept"
                ) from None
            if isinstance(error, OSError):
                time.sleep(2.0**failures)
            else:
                job = dataclasses.replace(job, careful=True)
