"""Worker processes of a preparation: one thread each, one job at a time, replaced when they are lost, gone when the
parent is.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import queue
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from valle_jax.errors import UserError, WorkError

Job = TypeVar("Job")
Result = TypeVar("Result")
At = Callable[[int], None]
"""What a job calls to say that it goes on, and which of its parts it is at."""

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_spawning = threading.Lock()  # of the environment, which all threads share


class WorkerLostError(Exception):
    """A job did not come to its end.

    Attributes:
      reason: `crashes the worker`, `hangs the worker` or `fails in the worker`.
      detail: what is known of it.
      at: the part that the job was at, or None.
    """

    def __init__(self, reason: str, detail: str, at: int | None):
        super().__init__(reason, detail, at)
        self.reason, self.detail, self.at = reason, detail, at

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


class Worker:
    """A process that runs one job at a time; another takes its place when it died or was ended because it hung.

    It is spawned: numerical libraries have one thread there, so that results do not depend on the number of workers.
    """

    def __init__(self) -> None:
        """Starts nothing; the process is started by the first job."""
        self._process: Any = None
        self._closed = False

    def call(self, function: Callable[[Job, At], Result], job: Job, silent_seconds: float) -> Result:
        """The result of `function(job, at)` in the process; it hangs if it neither ends nor calls `at` for so long.

        Raises:
          WorkerLostError: the process died or hung, or the function raised something unforeseen. UserError, WorkError
            and OSError are raised here as they were there.
        """
        if self._process is None:
            self._start()
        at = None
        try:
            self._pipe.send((function, job))
            while self._pipe.poll(silent_seconds):
                kind, value = self._pipe.recv()
                if kind == "at":
                    at = value
                elif kind == "result":
                    return value
                elif kind == "error":
                    raise value
                else:
                    raise WorkerLostError("fails in the worker", value, at)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self._end()
            detail = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise WorkerLostError("crashes the worker", detail, at) from None
        self._end()
        raise WorkerLostError("hangs the worker", f"no progress for {silent_seconds:g} s", at)

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def _start(self) -> None:
        if self._closed:
            raise WorkError("interrupted")
        context = multiprocessing.get_context("spawn")
        self._scratch = tempfile.TemporaryDirectory(prefix="valle-", ignore_cleanup_errors=True)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._scratch.name), daemon=True)
        with _spawning, _single_threaded():
            self._process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._scratch.cleanup()
        self._process = None


def map_unordered(run: Callable[[Worker, Job], Result], jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    """Results of `run` over `jobs` as they come, by so many workers; 0: one per CPU that this process may use.

    `run` is called in a thread of this process and has the job done by its worker. Jobs are drawn as they are needed,
    two per worker. What `run` raises is raised here, and ends the others.
    """
    processes = processes or usable_cpus()
    workers = [Worker() for _ in range(processes)]
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def run_one(job: Job) -> Result:
        worker = free.get()
        try:
            return run(worker, job)
        finally:
            free.put(worker)

    waiting: set[concurrent.futures.Future[Result]] = set()
    pool = concurrent.futures.ThreadPoolExecutor(processes)
    try:
        for job in jobs:
            waiting.add(pool.submit(run_one, job))
            if len(waiting) >= 2 * processes:
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in concurrent.futures.as_completed(waiting))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()
        pool.shutdown()


def usable_cpus() -> int:
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


def _serve(pipe: Any, scratch: str) -> None:
    """What a worker process does: jobs, until there are no more."""
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
    with contextlib.suppress(EOFError):
        while True:
            function, job = pipe.recv()
            try:
                message = ("result", function(job, lambda part: pipe.send(("at", part))))
            except (UserError, WorkError, OSError) as error:
                message = ("error", error)
            except Exception as error:  # of any library: what raises it may be one recording
                message = ("lost", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
            pipe.send(message)
