"""The accounts of a run's time over several starts."""

import json
import time

import pytest

from valle_jax.train.goodput import PHASES, Goodput


def test_phases_add_up_and_nest(tmp_path):
    start = time.monotonic()
    accounts = Goodput(tmp_path, active=True)
    accounts.work_on(1)
    with accounts.during("evaluate"):
        time.sleep(0.05)
        with accounts.during("checkpoint"):
            time.sleep(0.1)
        time.sleep(0.05)
    assert (accounts.step, accounts.phase) == (1, "train")
    accounts.write()
    assert accounts.seconds["checkpoint"] == pytest.approx(0.1, abs=0.04)
    assert accounts.seconds["evaluate"] == pytest.approx(0.1, abs=0.04)  # without what was inside
    assert sum(accounts.seconds.values()) == pytest.approx(time.monotonic() - start, abs=0.02)
    saved = json.loads((tmp_path / "goodput.json").read_text())
    assert set(saved["seconds"]) == set(PHASES) and saved["starts"] == 1 and saved["step"] == 1


def test_a_restart_counts_what_was_lost(tmp_path):
    first = Goodput(tmp_path, active=True)
    first.resume(0)
    for step in range(1, 5):
        first.work_on(step)
        time.sleep(0.05)
        if step == 2:
            first.saved(2)
    first.write()  # and then killed
    time.sleep(0.1)
    second = Goodput(tmp_path, active=True)
    second.resume(2)
    assert second.seconds["train"] == pytest.approx(0.1, abs=0.04)  # steps 1 and 2
    assert second.seconds["repeated"] == pytest.approx(0.1, abs=0.04)  # steps 3 and 4
    assert second.seconds["down"] == pytest.approx(0.1, abs=0.04)
    assert 0.2 < second.goodput < 0.45
    # Back to the start, as where no checkpoint was complete: nothing of it was kept.
    second.write()
    third = Goodput(tmp_path, active=True)
    third.resume(0)
    assert third.seconds["train"] == 0 and third.seconds["repeated"] == pytest.approx(0.2, abs=0.05)


def test_input_share_is_of_the_last_interval(tmp_path):
    accounts = Goodput(tmp_path, active=True)
    accounts.work_on(1)
    with accounts.during("input"):
        time.sleep(0.1)
    assert accounts.take()["input_share"] > 0.8
    time.sleep(0.1)
    assert accounts.take()["input_share"] < 0.1


def test_the_others_write_nothing(tmp_path):
    Goodput(tmp_path, active=False).write()
    assert not list(tmp_path.iterdir())
