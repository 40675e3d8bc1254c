"""Worker processes: results, laziness, environment, errors, deaths, hangs."""

import os
import signal
import time

import pytest

from data_prep.workers import Worker, WorkerLostError, map_unordered
from valle_jax.errors import UserError


def square(number, at):
    return number * number


def thread_setting(_, at):
    return os.environ["OMP_NUM_THREADS"]


def refuse(number, at):
    raise UserError(f"no {number}")


def fall(number, at):
    """Goes on to part `number`, and does there what its sign says."""
    at(abs(number))
    if number < 0:
        time.sleep(60)
    os.kill(os.getpid(), signal.SIGSEGV)


def stumble(_, at):
    raise KeyError("what no one\nforesaw")


def run(function):
    return lambda worker, job: worker.call(function, job, 30.0)


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.close()


def test_results_are_all_there():
    assert sorted(map_unordered(run(square), range(20), 2)) == [i * i for i in range(20)]


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []
    results = map_unordered(run(square), (drawn.append(i) or i for i in range(1000)), 1)
    for count in range(1, 6):
        next(results)
        assert len(drawn) <= count + 2
    results.close()


def test_workers_have_one_thread_and_the_parent_keeps_its_own(monkeypatch, worker):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert worker.call(thread_setting, 0, 30.0) == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_errors_reach_the_caller():
    with pytest.raises(UserError, match="no 3"):
        list(map_unordered(run(refuse), [3], 1))


def test_a_lost_worker_is_told_from_another_and_replaced(worker):
    with pytest.raises(WorkerLostError) as lost:
        worker.call(fall, 5, 30.0)
    assert (lost.value.reason, lost.value.detail, lost.value.at) == ("crashes the worker", "signal SIGSEGV", 5)
    worker.call(square, 1, 30.0)  # a new process, which has started when it is to hang
    with pytest.raises(WorkerLostError) as lost:
        worker.call(fall, -6, 1.0)
    assert (lost.value.reason, lost.value.at) == ("hangs the worker", 6)
    with pytest.raises(WorkerLostError) as lost:
        worker.call(stumble, 0, 30.0)
    assert (lost.value.reason, lost.value.detail) == ("fails in the worker", "KeyError: 'what no one\\nforesaw'")
    assert worker.call(square, 7, 30.0) == 49
