"""Tasks as processes: order, failures, shares of the machine."""

import os
import time

import pytest

from valle_jax.ablation.local import Task, machine_shares, run_all
from valle_jax.errors import UserError, WorkError


def task(folder, name, *needs, command=("--version",)) -> Task:
    """Done when its command has written its log: `valle --version` is the shortest command there is."""
    log = folder / "logs" / f"{name}.log"
    return Task(name, command, needs, lambda: log.exists() and "0." in log.read_text().partition("\n")[2])


def test_tasks_run_behind_what_they_need_and_once(tmp_path):
    tasks = [task(tmp_path, "last", "first", "second"), task(tmp_path, "first"), task(tmp_path, "second")]
    run_all(tasks, tmp_path / "logs", jobs=2)
    written = {name: (tmp_path / "logs" / f"{name}.log").stat().st_mtime for name in ("first", "second", "last")}
    assert max(written["first"], written["second"]) < written["last"]
    before = time.time()
    run_all(tasks, tmp_path / "logs", jobs=2)  # nothing is started
    assert {n: (tmp_path / "logs" / f"{n}.log").stat().st_mtime for n in written} == written
    assert time.time() - before < 1


def test_a_failure_stops_what_needs_it_and_nothing_else(tmp_path):
    bad = task(tmp_path, "bad", command=("inspect", str(tmp_path / "nowhere")))
    tasks = [bad, task(tmp_path, "behind", "bad"), task(tmp_path, "beside")]
    with pytest.raises(WorkError, match=r"2 tasks failed .* bad: exit code 2; see .*bad\.log"):
        run_all(tasks, tmp_path / "logs", jobs=1)
    assert tasks[2].done() and not (tmp_path / "logs" / "behind.log").exists()
    assert "is not a complete dataset directory" in (tmp_path / "logs" / "bad.log").read_text()


def test_a_task_that_leaves_nothing_has_failed(tmp_path):
    with pytest.raises(WorkError, match="should have made is not there"):
        run_all([Task("empty", ("--version",), (), lambda: False)], tmp_path / "logs", jobs=1)


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cores = os.sched_getaffinity(0)
    shares = machine_shares(len(cores))
    assert frozenset.union(*(share.cores for share in shares)) == cores
    assert all(len(share.cores) == 1 for share in shares)
    assert machine_shares(1)[0].cores is None  # all of the machine
    with pytest.raises(UserError, match="CPU cores"):
        machine_shares(len(cores) + 1)
    with pytest.raises(UserError, match="positive"):
        machine_shares(0)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in machine_shares(2)] == ["0,5", "3"]
