"""A run that stands still is ended with a report. Several processes: test_many_hosts.py."""

import subprocess
import sys
import textwrap

from valle_jax.errors import EXIT_RESTART

SCRIPT = """
    import pathlib, sys, time
    from valle_jax.train.goodput import Goodput
    from valle_jax.train.watchdog import Watchdog

    accounts = Goodput(pathlib.Path(sys.argv[1]), active=True)
    with Watchdog(accounts, float(sys.argv[2])):
        for step in range(1, 4):  # slow, but it moves
            accounts.work_on(step)
            time.sleep(0.6)
        with accounts.during("input"):
            time.sleep(float(sys.argv[3]))
    print("finished")
"""


def run(tmp_path, limit, hang):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path), str(limit), str(hang)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_hang_is_reported_and_ended(tmp_path):
    done = run(tmp_path, 1.0, 60)
    assert done.returncode == EXIT_RESTART
    report = done.stderr.splitlines()[0]
    assert report.startswith("process 0 of 1 on ") and ": no progress for 1 s at step 3, in phase 'input'" in report
    assert done.stderr.rstrip().endswith('File "<string>", line 12, in <module>')  # where the main thread stands
    assert "finished" not in done.stdout


def test_slow_is_not_hung_and_zero_is_off(tmp_path):
    for limit, hang in ((2.0, 0.1), (0, 2.0)):
        done = run(tmp_path, limit, hang)
        assert done.returncode == 0 and done.stdout == "finished\n" and not done.stderr
