"""What a suite submits: SLURM's arrays with an `sbatch` that answers as the real one does, GKE's manifests."""

import os
import pathlib
import subprocess

import pytest

from valle_jax.cli import main

SUITE = ["ablate", "p1_ar_prompt", "--corpus", "a b", "--preset", "tiny", "--seeds", "1", "--set", "model.n_layers=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    from train.train_helpers import write_dataset

    return str(write_dataset(tmp_path_factory.mktemp("data") / "random"))


def printed(capsys, *arguments: str) -> str:
    main([*SUITE, *arguments, "--dry-run"])
    return capsys.readouterr().out


def test_slurm(data, tmp_path, capsys):
    where = ["--data", data, "--out", str(tmp_path / "out"), "--launcher", "slurm"]
    script = printed(capsys, *where, "--launch", "nodes=1", "--launch", "gpus-per-node=1")
    (tmp_path / "sbatch").write_text(
        "#!/bin/bash\ncd $(dirname $0); n=$(ls job* 2>/dev/null | wc -l); cat > job$n; echo Submitted batch job 7$n\n"
    )
    (tmp_path / "sbatch").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "train: job 70\nevaluate: job 71\nreport: job 72\n"
    train, evaluate, report = ((tmp_path / f"job{i}").read_text() for i in range(3))
    assert "#SBATCH --array=0-1\n" in train and "--dependency" not in train  # one AR, one NAR
    assert "#SBATCH --array=0-3\n" in evaluate and "#SBATCH --dependency=afterok:70\n" in evaluate
    assert "#SBATCH --array=0-0\n" in report and "#SBATCH --dependency=afterok:71\n" in report
    for job, part in ((train, "train"), (evaluate, "evaluate"), (report, "report")):
        assert "#SBATCH --gpus-per-node=1\n" in job
        assert r"valle ablate p1_ar_prompt --data" in job and f"--only {part} " in job
        assert r"--corpus a\ b --seeds 1" in job.replace("  ", " ") or r"--corpus a\ b" in job
        subprocess.run(["bash", "-n", "-c", job], check=True)


def test_gke(data, tmp_path, capsys):
    yaml = pytest.importorskip("yaml")
    options = {"image": "image:1", "accelerator": "tpu-v5-lite-podslice", "topology": "2x4", "claim": "results"}
    launch = [word for name, value in options.items() for word in ("--launch", f"{name}={value}")]
    script = printed(capsys, "--data", data, "--out", str(tmp_path), "--launcher", "gke", *launch)
    manifests = []
    for line in script.splitlines()[1:]:
        dry = line.replace(" -- ablate", " --dry-run -- ablate")
        done = subprocess.run(["bash", "-c", dry], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        manifests.append(yaml.safe_load(done.stdout))
    names = [manifest["metadata"]["name"] for manifest in manifests]
    assert names == ["p1-ar-prompt-train", "p1-ar-prompt-evaluate", "p1-ar-prompt-report"]
    assert [manifest["spec"]["completions"] for manifest in manifests] == [2, 4, 1]
    for manifest in manifests:
        assert manifest["spec"]["completionMode"] == "Indexed"
        pod = manifest["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"] == {"limits": {"google.com/tpu": 8}}
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "results"}
        assert r"exec valle ablate p1_ar_prompt" in container["args"][0]
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"


def test_an_element_of_an_array_knows_its_part(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")
    with pytest.raises(SystemExit) as stop:
        main([*SUITE, "--data", data, "--out", str(tmp_path), "--only", "train"])
    assert stop.value.code == 2
    assert "no such part; train:N (N < 2), evaluate:N (N < 4) and report are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "slurm", "--launch", "nodes"], "not of the form option=value"),
        (["--steps", "3,4,5"], "--steps 3,4,5 is not AR,NAR nor one number"),
        (["--steps", "many"], "not AR,NAR"),
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["--set", "model.layers=2"], "did you mean 'model.n_layers'"),
        (["--only", "sing"], "no such part"),
    ],
)
def test_mistakes(data, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main([*SUITE, "--data", data, "--out", str(tmp_path), *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("valle ablate: ")
    assert not list(pathlib.Path(tmp_path).iterdir())
