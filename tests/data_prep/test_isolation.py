"""Recordings that kill, hang or upset their worker cost themselves, and nothing else."""

import os
import pathlib
import signal
import time

import pytest

from data_prep.isolation import run_isolated
from data_prep.jobs import ShardJob
from data_prep.sources import Recording
from data_prep.workers import Worker
from valle_jax.errors import WorkError


def job(*texts, folder=""):
    recordings = tuple(Recording(f"u{i}", "s", text, "", "") for i, text in enumerate(texts))
    return ShardJob(folder, 0, 1, recordings, ("train",) * len(texts), "", None, "", None, 0, 1)


def act(shard, at):
    """Does with each recording what its text says; returns the positions done, and why others were not."""
    done = []
    for members in shard.groups():
        at(members[0])
        for i in members:
            match shard.recordings[i].text:
                case "crash":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(60)
                case "fail":
                    raise RuntimeError("bad audio")
            done.append(i)
    return done, {i: (rejection.reason, rejection.detail) for i, rejection in shard.poison.items()}


def be_killed_once(shard, at):
    """Its worker is killed from outside at the first attempt, and again at the first careful one."""
    flag = pathlib.Path(shard.folder) / str(shard.careful)
    at(0)
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sorted(shard.poison)


def lose_the_disk(shard, at):
    """Input and output errors until the third attempt."""
    tries = len(list(pathlib.Path(shard.folder).iterdir()))
    (pathlib.Path(shard.folder) / str(tries)).touch()
    if tries < 2:
        raise OSError(5, "Input/output error")
    return "done"


def die(shard, at):
    os._exit(3)


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


def test_bad_recordings_are_isolated(worker):
    worker.call(act, job("good"), 60.0)  # the process has started when the short limit begins
    done, poison = run_isolated(worker, job("good", "crash", "good", "fail", "hang", "good"), act, 3.0)
    assert done == [0, 2, 5]
    assert poison == {
        1: ("crashes the worker", "signal SIGKILL"),
        3: ("fails in the worker", "RuntimeError: bad audio"),
        4: ("hangs the worker", "no progress for 3 s"),
    }


def test_a_worker_killed_from_outside_costs_no_recording(worker, tmp_path):
    assert run_isolated(worker, job("good", folder=str(tmp_path)), be_killed_once, 60.0) == []


def test_errors_of_the_system_are_waited_for(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert run_isolated(worker, job("good", folder=str(tmp_path)), lose_the_disk, 60.0) == "done"


def test_what_always_fails_is_an_error(worker):
    with pytest.raises(WorkError, match=r"shard 0 failed 4 times, .* crashes the worker \(exit code 3\)"):
        run_isolated(worker, job("good"), die, 60.0)
