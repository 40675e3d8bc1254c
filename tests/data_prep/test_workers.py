"""Worker processes: results, laziness, environment, errors."""

import os

import pytest

from data_prep.workers import map_unordered
from valle_jax.errors import UserError, WorkError


def square(number):
    return number * number


def thread_setting(_):
    return os.environ["OMP_NUM_THREADS"]


def refuse(number):
    raise UserError(f"no {number}")


def die(_):
    os._exit(9)


def test_results_are_all_there():
    assert sorted(map_unordered(square, range(20), 2)) == [i * i for i in range(20)]


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []
    results = map_unordered(square, (drawn.append(i) or i for i in range(1000)), 1)
    for count in range(1, 6):
        next(results)
        assert len(drawn) <= count + 2
    results.close()


def test_workers_have_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(map_unordered(thread_setting, [0], 1)) == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_errors_reach_the_caller():
    with pytest.raises(UserError, match="no 3"):
        list(map_unordered(refuse, [3], 1))
    with pytest.raises(WorkError, match="a worker process died"):
        list(map_unordered(die, [0, 1], 1))
