"""`valle quickstart` in a process of its own, with decoders that have no time to learn anything."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from environments import with_devices
from train.train_helpers import write_dataset

from valle_jax.audio import read_audio
from valle_jax.cli import main
from valle_jax.errors import WorkError
from valle_jax.quickstart.command import Clock, Quickstart
from valle_jax.quickstart.report import CONTROLS, SYSTEMS

for package in ("pocketsphinx", "espeakng_loader", "phonemizer", "matplotlib"):
    pytest.importorskip(package, reason="the extra `quickstart` is not installed")


def test_it_writes_what_it_promises(tmp_path):
    out = tmp_path / "out"
    arguments = ["quickstart", f"--out={out}", "--minutes=0.2", "--steps", "2", "3", "--test-utterances=2"]
    command = [sys.executable, "-m", "valle_jax.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_devices(1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "report.html")
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] == {"ar": 2, "nar": 3}
    assert 0.85 < report["digit_accuracy_codec"] <= 1
    assert report["digit_accuracy_unseen"] < 0.6  # nothing was learned
    assert report["wall_seconds"] > 1
    assert set(report["scores"]) == set(SYSTEMS)
    assert set(report["controls"]) == set(CONTROLS)
    assert len(report["cases"]) == 2
    for name in ("prompt", *SYSTEMS):
        assert len(read_audio(out / report["cases"][0][name], 24_000)) > 1000
    page = (out / "report.html").read_text()
    links = re.findall(r'src="([^"]+)"', page)
    assert len(links) == 2 * (1 + len(SYSTEMS)) + 2  # players, pictures
    assert all((out / link).is_file() for link in links)
    assert (out / "model" / "ar.safetensors").is_file()


def test_sigterm_while_it_trains_ends_it(tmp_path):
    """And not the training alone, as in `valle train`, where the next start goes on."""
    write_dataset(tmp_path / "dataset")
    quickstart, clock = Quickstart(), Clock.start(minutes=1.0)

    def terminate():
        lines = tmp_path / "ar" / "metrics.jsonl"
        while not (lines.exists() and lines.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(WorkError, match="SIGTERM"):
        quickstart._train_stage(tmp_path, clock, "ar", 10_000)
    thread.join()


def test_a_folder_that_holds_something_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as error:
        main(["quickstart", f"--out={tmp_path}"])
    assert error.value.code == 2
    assert "holds something already" in capsys.readouterr().err
