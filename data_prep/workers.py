"""Worker processes of a preparation: one thread each, few jobs in flight, gone when the parent is."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from valle_jax.errors import WorkError

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def map_unordered(function: Callable[[Job], Result], jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    """Results of `function` over `jobs` as they come; 0 processes: one per CPU that this process may use.

    The function runs in spawned processes even where one is asked for: numerical libraries have one thread there, so
    that results do not depend on the number of processes. Jobs are drawn as they are needed, two per process.

    Raises:
      WorkError: a process died. What the function raises is raised here.
    """
    processes = processes or _usable_cpus()
    waiting: set[concurrent.futures.Future[Result]] = set()
    with _single_threaded(), tempfile.TemporaryDirectory(prefix="valle-") as scratch:
        pool = concurrent.futures.ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_start, initargs=(scratch,)
        )
        try:
            for job in jobs:
                waiting.add(pool.submit(function, job))
                if len(waiting) >= 2 * processes:
                    done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            yield from (future.result() for future in concurrent.futures.as_completed(waiting))
        except concurrent.futures.process.BrokenProcessPool:
            raise WorkError(
                "a worker process died (killed, or out of memory?); what is complete is kept: run the same command "
                "again, perhaps with fewer --processes"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _usable_cpus() -> int:
    """CPUs of this process: fewer than the machine's in many containers and batch jobs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Sets the environment that spawned processes inherit: numerical libraries read it when they are imported."""
    before = {name: os.environ.get(name) for name in _THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(scratch: str) -> None:
    """Runs first in each worker."""
    # espeak's wrapper leaves its copy of the library behind where a worker ends; the parent removes this folder.
    tempfile.tempdir = scratch
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C: the parent reports it, once
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()  # else workers outlive a parent that was killed
