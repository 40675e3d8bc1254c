"""Runs of several real processes on one machine, gloo collectives between them: terminated, killed, hung, resumed."""

import json
import re
import signal
import time

import numpy as np
import pytest
from run_helpers import SETTINGS, STEPS, Job, assert_same_params, loop_config, losses, read_metrics

from valle_jax.errors import EXIT_RESTART
from valle_jax.train.checkpoint import complete_steps
from valle_jax.train.loop import train


@pytest.fixture
def start(dataset):
    """Starts a `Job`; what is left of it ends with the test."""
    jobs = []

    def starter(*arguments, **settings):
        jobs.append(Job(*arguments, dataset=dataset, **settings))
        return jobs[-1]

    yield starter
    for job in jobs:
        for process in job.processes:
            process.kill()
            process.communicate()


def test_terminated_killed_and_resumed_by_other_numbers_of_processes(start, dataset, tmp_path):
    """Two processes get SIGTERM, four that go on lose one to SIGKILL, one finishes: the losses of an unbroken run."""
    job = start(2, tmp_path / "cut", "data=4", train__steps=STEPS)
    job.wait_for_step(7)
    job.signal(signal.SIGTERM, [1])  # only one of them is told
    codes, errors = job.finish()
    stopped_at = complete_steps(tmp_path / "cut")[-1]
    assert codes == [EXIT_RESTART] * 2, errors
    assert all(f"preempted, saved at step {stopped_at};" in error for error in errors)
    assert 7 < stopped_at < STEPS and len(losses(tmp_path / "cut")) == stopped_at

    job = start(4, tmp_path / "cut", "data=2,tensor=2")
    job.wait_for_checkpoint(stopped_at)
    job.signal(signal.SIGKILL, [2])
    codes, errors = job.finish()
    assert codes[2] == -signal.SIGKILL and all(codes), errors
    killed_at, resumes_from = len(losses(tmp_path / "cut")), complete_steps(tmp_path / "cut")[-1]
    assert stopped_at < resumes_from <= killed_at < STEPS

    job = start(1, tmp_path / "cut", "fsdp=4")
    codes, errors = job.finish()
    assert codes == [0], errors
    accounts = json.loads((tmp_path / "cut" / "goodput.json").read_text())
    assert accounts["starts"] == 3 and accounts["seconds"]["down"] > 0
    assert (accounts["seconds"]["repeated"] > 0) == (killed_at > resumes_from)

    train(loop_config(**SETTINGS), [(dataset, 1.0)], tmp_path / "whole", mesh={"data": 4})
    # Sums in another order: float32 roundings of 1e-7 that training carries on over 40 steps.
    np.testing.assert_allclose(losses(tmp_path / "cut"), losses(tmp_path / "whole"), rtol=1e-4)


@pytest.mark.slow
def test_terminated_killed_and_resumed_by_the_same_processes_is_bit_equal(start, tmp_path):
    job = start(2, tmp_path / "cut", "data=2,fsdp=2", stage="nar")
    job.wait_for_step(4)
    job.signal(signal.SIGTERM)  # all are told
    codes, errors = job.finish()
    assert codes == [EXIT_RESTART] * 2, errors
    job = start(2, tmp_path / "cut", "data=2,fsdp=2", stage="nar")
    job.wait_for_step(complete_steps(tmp_path / "cut")[-1] + 8)
    job.signal(signal.SIGKILL, [0])
    codes, errors = job.finish()
    assert codes[0] == -signal.SIGKILL and codes[1] != 0, errors
    for workdir in ("cut", "whole"):
        codes, errors = start(2, tmp_path / workdir, "data=2,fsdp=2", stage="nar").finish()
        assert codes == [0, 0], errors
    assert read_metrics(tmp_path / "cut")[0] == read_metrics(tmp_path / "whole")[0]
    assert_same_params(tmp_path / "cut", tmp_path / "whole", step=STEPS)


def test_a_process_that_stands_still_is_named(start, tmp_path):
    limit_seconds = 20  # more than a process may wait for the other to compile
    job = start(2, tmp_path, "data=4", train__steps=4000, train__hang_seconds=limit_seconds, heartbeat_seconds=300)
    job.wait_for_step(5)
    job.signal(signal.SIGSTOP, [1])
    report = job.processes[0].communicate(timeout=120)[1]
    assert job.processes[0].returncode == EXIT_RESTART
    first, zero, one = report[report.index("process 0 of 2") :].splitlines()[:3]
    hung = re.match(r"process 0 of 2 on \S+: no progress for 2\d s at step (\d+), in phase '\w+'; ending", first)
    assert hung and 5 <= int(hung[1]) <= len(losses(tmp_path)) + 2  # losses are written a step late
    assert zero.startswith(f"  process 0: step {hung[1]}, ") and one.startswith("  process 1: step ")
    silence = int(one.rpartition("last heard of ")[2].split()[0])
    assert silence >= limit_seconds - 10 > int(zero.rpartition("last heard of ")[2].split()[0])


LAYOUTS = [(1, "data=4"), (1, "fsdp=2,tensor=2"), (2, "data=2,tensor=2"), (4, "fsdp=4"), (4, "data=2,fsdp=2")]


@pytest.mark.slow
@pytest.mark.parametrize("layouts", ["five", "same"])
@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_five_kills_at_random_moments(start, tmp_path, stage, layouts):
    """SIGKILL and SIGTERM of one process or all, at random moments; resumed on other processes and meshes, or the same.

    `-k same` are the bit-equal ones.
    """
    random = np.random.default_rng()
    whole, cut, last = tmp_path / "whole", tmp_path / "cut", (2, "data=4")
    places = [LAYOUTS[i] for i in random.permutation(len(LAYOUTS))] if layouts == "five" else [last] * 5
    kinds = [(signal.SIGKILL, False), (signal.SIGKILL, False), (signal.SIGKILL, True)]
    kinds += [(signal.SIGTERM, False), (signal.SIGTERM, True)]
    done = 0
    for i, (count, mesh) in zip(random.permutation(5), places, strict=True):
        number, everyone = kinds[i]
        job = start(count, cut, mesh, stage=stage, heartbeat_seconds=30)
        job.wait_for_step(done + int(random.integers(1, 6)))
        time.sleep(random.uniform(0, 0.05))
        job.signal(number, None if everyone else [random.integers(count)])
        codes, errors = job.finish()
        before, done = done, len(losses(cut))
        who = "all" if everyone else "one"
        print(f"{number.name} of {who} of {count} on {mesh} in step {done}: exit codes {codes}")
        assert all(codes) and before < done < STEPS, errors
    for workdir in (cut, whole):
        codes, errors = start(last[0], workdir, last[1], stage=stage).finish()
        assert codes == [0, 0], errors
    if layouts == "same":
        assert read_metrics(cut)[0] == read_metrics(whole)[0]
        assert_same_params(cut, whole, step=STEPS)
    else:
        # As above: sums in another order.
        np.testing.assert_allclose(losses(cut), losses(whole), rtol=1e-4)
