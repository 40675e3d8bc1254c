"""Runs commands as processes of this machine, several at once, each in what is its share of the machine."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import glob
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import IO

from tqdm import tqdm

from valle_jax.errors import EXIT_RESTART, RestartError, UserError, WorkError

_POLL_SECONDS = 0.2
_STARTS = 20  # of one task, as long as it ends with EXIT_RESTART
VALLE = (sys.executable, "-m", "valle_jax.cli")


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to be done once.

    Attributes:
      name: of its log.
      command: arguments of `valle`.
      needs: names of tasks that must be done before.
      done: whether it is; asked before a start and afterwards.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    done: Callable[[], bool]


def run_here(task: Task) -> None:
    """Runs a task in this process's place, with its signals and its environment: an element of an array."""
    if task.done():
        print(f"{task.name} is done already")
        return
    sys.stdout.flush()
    os.execv(sys.executable, [*VALLE, *task.command])


def run_all(tasks: Sequence[Task], folder: pathlib.Path, jobs: int) -> None:
    """Runs all that is not done, `jobs` at a time; output goes to FOLDER/NAME.log.

    A task that another process runs, such as one that outlived a killed `valle ablate`, is waited for. SIGTERM and
    Ctrl-C stop the tasks, which save where they are.

    Raises:
      WorkError: tasks failed; what does not need them was done.
      RestartError: after SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shares = machine_shares(jobs)
    with _Stopped() as stopped:
        _Scheduler(tasks, folder, shares).run(stopped)


class _Stopped:
    """Whether SIGTERM came, while it is entered."""

    def __init__(self) -> None:
        self.by_signal = False

    def __bool__(self) -> bool:
        return self.by_signal

    def __enter__(self) -> _Stopped:
        def stop(number: int, frame: FrameType | None) -> None:
            self.by_signal = True

        self._before = signal.signal(signal.SIGTERM, stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


@dataclasses.dataclass
class _Running:
    """A process, and the lock that it keeps for as long as it lives."""

    task: Task
    share: Share
    process: subprocess.Popen
    log: IO[str]
    lock: IO[str]


class _Scheduler:
    def __init__(self, tasks: Sequence[Task], folder: pathlib.Path, shares: Sequence[Share]):
        self._folder = folder
        self._waiting = [task for task in tasks if not task.done()]
        self._open = {task.name for task in self._waiting}  # not done, not failed
        self._failed: dict[str, str] = {}
        self._free = list(shares)
        self._running: list[_Running] = []
        self._starts: collections.Counter[str] = collections.Counter()
        self._bar = tqdm(total=len(tasks), initial=len(tasks) - len(self._waiting), desc="ablate", unit="task")

    def run(self, stopped: _Stopped) -> None:
        """Until nothing waits or runs."""
        try:
            while (self._waiting or self._running) and not stopped:
                self._start_ready()
                time.sleep(_POLL_SECONDS)
                for running in list(self._running):
                    if running.process.poll() is not None:
                        self._ended(running)
        finally:
            self._stop_all()
            self._bar.close()
        if stopped:
            raise RestartError("stopped; the same command goes on")
        if self._failed:
            name, why = next(iter(self._failed.items()))
            raise WorkError(f"{len(self._failed)} tasks failed or lack one that did; {name}: {why}")

    def _start_ready(self) -> None:
        for task in list(self._waiting):
            broken = [name for name in task.needs if name in self._failed]
            if broken:
                self._waiting.remove(task)
                self._fail(task, f"needs {broken[0]}")
            elif self._free and not any(name in self._open for name in task.needs):
                self._try_start(task)

    def _try_start(self, task: Task) -> None:
        lock = open(self._folder / f"{task.name}.lock", "w", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return  # another process is at it; asked again at the next turn
        self._waiting.remove(task)
        if task.done():  # by that other process
            lock.close()
            self._finish(task)
            return
        log = open(self._folder / f"{task.name}.log", "a", encoding="utf-8")  # noqa: SIM115
        self._starts[task.name] += 1
        share = self._free.pop(0)
        self._running.append(_Running(task, share, _spawn(task, share, log, lock), log, lock))
        self._show()

    def _ended(self, running: _Running) -> None:
        task, code = running.task, running.process.returncode
        self._running.remove(running)
        self._free.append(running.share)
        running.log.close()
        running.lock.close()
        if code == EXIT_RESTART and self._starts[task.name] < _STARTS:
            self._waiting.append(task)
        elif code == 0 and task.done():
            self._finish(task)
        else:
            why = f"exit code {code}" if code else "it ended, but what it should have made is not there"
            self._fail(task, f"{why}; see {self._folder / task.name}.log")
        self._show()

    def _finish(self, task: Task) -> None:
        self._open.discard(task.name)
        self._bar.update()

    def _fail(self, task: Task, why: str) -> None:
        self._open.discard(task.name)
        self._failed[task.name] = why
        self._bar.write(f"{task.name}: {why}", file=sys.stderr)

    def _show(self) -> None:
        self._bar.set_postfix_str(", ".join(running.task.name for running in self._running))

    def _stop_all(self) -> None:
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            running.process.wait()
            running.log.close()
            running.lock.close()


def _spawn(task: Task, share: Share, log: IO[str], lock: IO[str]) -> subprocess.Popen:
    command = [*VALLE, *task.command]
    log.write(f"$ {shlex.join(command)}\n")
    log.flush()
    with share.taken():
        # The lock goes along: it is held until the last process that has it ends, even if this one is killed.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **share.environment},
            pass_fds=(lock.fileno(),),
        )


@dataclasses.dataclass(frozen=True)
class Share:
    """What of the machine a process gets.

    Attributes:
      environment: variables, over those of this process.
      cores: numbers of its CPU cores; None: all.
    """

    environment: Mapping[str, str]
    cores: frozenset[int] | None = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Processes that are started inside get its cores."""
        if self.cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        yield
        os.sched_setaffinity(0, before)


def machine_shares(jobs: int) -> list[Share]:
    """`jobs` shares of this machine's GPUs or, without any, of its cores.

    Raises:
      UserError: there is not a GPU or a core for each, or it is a TPU host, whose chips belong to one process.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be positive")
    if jobs == 1:
        return [Share({})]
    on_cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
    if not on_cpu and list(_devices("/dev/accel*", "/dev/vfio/[0-9]*")):
        raise UserError("--jobs: the chips of a TPU host belong to one process; use --jobs 1, or --launcher gke")
    gpus = [] if on_cpu else _visible_gpus()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    things = gpus or [str(core) for core in cores]
    if jobs > len(things):
        raise UserError(f"--jobs {jobs}: this machine has {len(things)} {'GPUs' if gpus else 'CPU cores'}")
    parts = [things[i::jobs] for i in range(jobs)]
    if gpus:
        return [Share({"CUDA_VISIBLE_DEVICES": ",".join(part)}) for part in parts]
    return [Share({}, frozenset(map(int, part)) if hasattr(os, "sched_setaffinity") else None) for part in parts]


def _devices(*patterns: str) -> Iterator[str]:
    for pattern in patterns:
        yield from glob.glob(pattern)


def _visible_gpus() -> list[str]:
    """Their numbers or names, as CUDA_VISIBLE_DEVICES takes them; JAX is not asked, for it would take them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    return [str(i) for i in range(len(list(_devices("/dev/nvidia[0-9]*"))))]
