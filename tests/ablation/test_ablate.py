"""`valle ablate` from training to report, in processes of its own, with decoders that learn nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from environments import with_devices

from valle_jax.train.checkpoint import complete_steps

SMALL = ("model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.d_ff=32", "train.log_every=2")
STEPS = 12
ENVIRONMENT = with_devices(1)

LOSSES = """
from valle_jax.ablation.suite import Member, Suite
SUITE = Suite(
    name="losses", question="Which learns more?", baseline="ReLU",
    members=(
        Member("ReLU"),
        Member("GELU", ar={"model.activation": "gelu"}),
        Member("control: one step", ar={"train.steps": 1}, expect="worse"),
    ),
    stages=("ar",), decisive=("ar loss",),
)
"""

SPEECH = """
from valle_jax.ablation.suite import Member, Suite
SUITE = Suite(
    name="speech", question="Does top-p matter?", baseline="all codes",
    members=(
        Member("all codes"),
        Member("top-p", speaking={"top_p": 0.5}),
        Member("control: other speaker", systems=("other-speaker",), expect="worse"),
    ),
    decisive=("mel_distortion",),
)
"""


def command(suite, data, out, *more: str) -> list[str]:
    """Trains a tiny decoder for a few steps, with a checkpoint every third."""
    settings = [*SMALL, "train.checkpoint_every=3", "train.evaluate_every=6", "train.evaluate_rows=2"]
    where = ["--data", str(data), "--out", str(out), "--preset", "tiny", "--steps", str(STEPS)]
    sets = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "valle_jax.cli", "ablate", str(suite), *where, *sets, *more]


def report_of(out):
    """The folder of the only suite."""
    (path,) = out.glob("*/report.html")
    return path.parent


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    """SIGKILL once the first training has a checkpoint: the second start resumes it and repeats nothing."""
    from train.train_helpers import write_dataset

    data = write_dataset(tmp_path / "data")
    (tmp_path / "losses.py").write_text(LOSSES)
    out = tmp_path / "out"
    arguments = command(tmp_path / "losses.py", data, out)
    first = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (runs := [run for run in (out / "runs").glob("*") if complete_steps(run)]):
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    step = complete_steps(runs[0])[-1]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    description = json.loads((runs[0] / "run.json").read_text())
    # Either it was still training and went on from its checkpoint, or it was done and was not started again.
    assert description["resumed_from_step"] == (step if step < STEPS else 0)

    results = json.loads((report_of(out) / "results.json").read_text())
    assert [line["member"] for line in results["lines"]] == ["ReLU", "GELU", "control: one step"]
    trainings = results["trainings"]
    assert [trainings[line["trainings"][0]]["steps"] for line in results["lines"]] == [STEPS, STEPS, 1]
    baseline, other, control = (line["cells"]["ar loss"] for line in results["lines"])
    assert baseline["verdict"] == "" and other["verdict"] in ("better", "worse") and control["verdict"] == "worse"
    assert results["lines"][2]["control"] is True
    assert all(record["flops"] > 0 and record["seconds"] > 0 for record in trainings.values())
    report = (report_of(out) / "report.md").read_text()
    assert "| ReLU (baseline) |" in report and "control: one step: holds" in report
    assert (report_of(out) / "pictures" / "ar_loss.png").stat().st_size > 1000

    # A third start finds everything done; a report can be made anew from what is there.
    before = {path: path.stat().st_mtime for path in (out / "runs").rglob("metrics.jsonl")}
    folder = report_of(out)
    (folder / "report.md").unlink()
    again = subprocess.run([*arguments, "--only", "report"], env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (report_of(out) / "report.md").read_text().splitlines()[:9] == report.splitlines()[:9]
    assert {path: path.stat().st_mtime for path in (out / "runs").rglob("metrics.jsonl")} == before


@pytest.mark.slow
def test_from_digits_to_a_table(tmp_path):
    """Two members and a control, heard: the trainings are shared, the controls judged, the pages linked."""
    for package in ("pocketsphinx", "espeakng_loader", "phonemizer", "matplotlib"):
        pytest.importorskip(package, reason="the extras `quickstart` and `eval` are not installed")

    def run(module: str, *arguments) -> None:
        words = [sys.executable, "-m", module, *map(str, arguments)]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    corpus, data, out = tmp_path / "corpus", tmp_path / "data", tmp_path / "out"
    run("data_prep.synthetic", f"--out={corpus}", "--minutes=0.5", "--voices=4", "--test-utterances=6")
    run("valle_jax.cli", "prepare", f"--source={corpus / 'train'}", f"--out={data}", "--processes=1")
    (tmp_path / "speech.py").write_text(SPEECH)
    how = ["--corpus", str(corpus / "test"), "--protocol", "short", "--seeds", "2", "--limit", "4"]
    how += ["--measures", "spectral_distortion", "duration", "--jobs", "2"]
    arguments = command(tmp_path / "speech.py", data, out, *how)
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + "".join(log.read_text() for log in (out / "logs").glob("*.log"))
    assert len(list((out / "runs").iterdir())) == 2 and len(list((out / "models").iterdir())) == 1
    results = json.loads((report_of(out) / "results.json").read_text())
    lines = {line["member"]: line for line in results["lines"]}
    assert {name: line["row"] for name, line in lines.items()} == {
        "all codes": "valle",
        "top-p": "valle",
        "control: other speaker": "other-speaker",
    }
    decisive = [figure for figure in lines["top-p"]["cells"] if figure.endswith(":mel_distortion")]
    assert decisive
    for figure in decisive:
        assert lines["all codes"]["cells"][figure]["difference"] is None
        difference = lines["top-p"]["cells"][figure]["difference"]
        assert difference["n"] == 4  # trials, not takes
        shown = lines["top-p"]["cells"][figure]["verdict"] != "no difference shown"
        assert shown == (not difference["low"] <= 0 <= difference["high"])
    assert lines["control: other speaker"]["control"] is not None
    for line in lines.values():
        assert (report_of(out) / line["folder"] / "index.html").is_file()
        assert f'href="{line["folder"]}/index.html"' in (report_of(out) / "report.html").read_text()
