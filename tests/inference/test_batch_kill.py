"""`valle batch` in processes of its own, killed at random moments."""

import itertools
import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.inference.voice import voice_path

JOBS = 96
KILLS = 4
WORDS = ("one", "two", "three", "four", "five", "six")


def _command(model_dir, folder, out):
    command = [sys.executable, "-m", "valle_jax.cli", "batch", f"--model={model_dir}", f"--jobs={folder}/jobs.jsonl"]
    command += [f"--out={out}", f"--voices={folder}", "--slots=4", "--tries=2", "--max-tokens=256"]
    return {"args": command, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def _results(out):
    """The whole lines of results.jsonl, and whether there is a broken one behind them."""
    path = out / "results.jsonl"
    whole, _, rest = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()], bool(rest)


@pytest.mark.slow
def test_jobs_are_neither_lost_nor_done_twice_however_often_it_is_killed(model_dir, tts, tmp_path):
    """`pytest -m slow tests/inference/test_batch_kill.py`: SIGKILL during start-up and while results are written."""
    tts.voice(0.3 * np.sin(0.05 * np.arange(24000)), "one two").save(voice_path("anna", tmp_path))
    texts = itertools.islice(itertools.cycle(itertools.permutations(WORDS, 2)), JOBS)
    lines = [{"id": f"job{i}", "text": " ".join(text), "voice": "anna"} for i, text in enumerate(texts)]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(**_command(model_dir, tmp_path, whole), check=False)
    assert done.returncode == 0, done.stdout

    rng = random.Random(0)
    counts = [0]
    for _ in range(KILLS):
        process = subprocess.Popen(**_command(model_dir, tmp_path, killed))
        enough = counts[-1] + rng.randint(0, 3 * JOBS // (4 * KILLS))
        while len(_results(killed)[0]) < enough and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        results, _ = _results(killed)
        for line in results:  # what has a line has its audio, whole
            assert len(read_audio(killed / line["audio"], 24000)) == line["frames"] * 320
        counts.append(len(results))
    assert 0 < counts[-1] < JOBS
    assert counts == sorted(counts)
    last = subprocess.run(**_command(model_dir, tmp_path, killed), check=False)
    assert last.returncode == 0, last.stdout
    assert json.loads(last.stdout.splitlines()[-1])["done"] == JOBS - counts[-1]

    results, broken = _results(killed)
    assert not broken
    assert sorted(line["id"] for line in results) == sorted(line["id"] for line in lines)
    timeless = [{k: v for k, v in line.items() if k != "real_time_factor"} for line in results]
    expected = [{k: v for k, v in line.items() if k != "real_time_factor"} for line in _results(whole)[0]]
    assert sorted(timeless, key=lambda line: line["line"]) == sorted(expected, key=lambda line: line["line"])
    audio = [{path.name: path.read_bytes() for path in (out / "audio").iterdir()} for out in (whole, killed)]
    assert audio[0] == audio[1]
