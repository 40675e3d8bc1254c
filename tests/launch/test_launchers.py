"""What the launchers would run, from `--dry-run`, and SLURM's batch script run for real."""

import os
import pathlib
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
VERB = ["train", "--preset", "base", "--data", "gs://bucket/a b", "--steps", "10"]


def run(script, *arguments, **environment):
    command = [LAUNCH / f"{script}.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def dry_run(script, *arguments):
    done = run(script, *arguments, "--dry-run", "--", *VERB)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


def test_tpu_vm():
    where = ["--name", "job", "--zone", "us-east5-b", "--source", "git+https://example.org/valle@1"]
    create, ssh, _, delete = dry_run("tpu_vm", *where, "--type", "v5litepod-256", "--spot", "yes").splitlines()
    assert create.strip() == (
        "gcloud compute tpus queued-resources create job --node-id job --zone us-east5-b "
        "--accelerator-type v5litepod-256 --runtime-version v2-alpha-tpuv5-lite --spot"
    )
    assert ssh.startswith("gcloud compute tpus tpu-vm ssh job --zone us-east5-b --worker=all --command ")
    # What the hosts run is one quoted word; bash takes it apart again.
    remote = subprocess.run(
        ["bash", "-c", f"printf %s {ssh.partition('--command ')[2]}"], capture_output=True, text=True
    )
    assert "valle-jax[tpu] @ git+https://example.org/valle@1" in remote.stdout
    assert r"valle train --preset base --data gs://bucket/a\ b --steps 10 ||" in remote.stdout
    assert "VALLE_DISTRIBUTED=auto" in remote.stdout
    subprocess.run(["bash", "-n", "-c", remote.stdout], check=True)
    assert delete.startswith("gcloud compute tpus queued-resources delete job")


def test_gke():
    where = [
        "--cluster",
        "c",
        "--workload",
        "w",
        "--tpu-type",
        "v5litepod-256",
        "--image",
        "image:1",
        "--num-slices",
        "2",
    ]
    printed = dry_run("gke", *where)
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {printed}"], capture_output=True, text=True
    ).stdout.splitlines()
    assert words[:3] == ["xpk", "workload", "create"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert (
        options["--num-slices"] == "2" and options["--max-restarts"] == "100" and options["--docker-image"] == "image:1"
    )
    assert options["--command"] == r"valle train --preset base --data gs://bucket/a\ b --steps 10"


@pytest.mark.parametrize("code, requeued", [(0, False), (75, True), (134, True), (1, False)])
def test_slurm_script_requeues_what_was_preempted(tmp_path, code, requeued):
    """The script that would be submitted, run with an `srun` and an `scontrol` that say what they were asked."""
    script = dry_run("slurm", "--nodes", "4", "--partition", "gpu", "--time", "1:00:00", "--environment", "")
    for line in (
        "--nodes=4",
        "--ntasks-per-node=8",
        "--signal=TERM@180",
        "--requeue",
        "--partition=gpu",
        "--time=1:00:00",
    ):
        assert f"#SBATCH {line}\n" in script
    for name, exit_code in (("srun", code), ("scontrol", 0)):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@"\nexit {exit_code}\n')
        tool.chmod(0o755)
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, text=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
    )  # fmt: skip
    assert "valle train --preset base --data gs://bucket/a b --steps 10\n" in done.stdout
    assert ("scontrol requeue 7" in done.stdout) == requeued
    assert done.returncode == (0 if requeued else code)


PREPARE = ["prepare", "--source", "/data/a b", "--out", "/data/set"]


def prepare_array(*arguments):
    return run("prepare_array", "--tasks", "3", *arguments, "--dry-run", "--", *PREPARE).stdout


def test_prepare_array_for_slurm(tmp_path):
    """The script that would be submitted, run with a `valle` that says what it was asked."""
    plan, _, script = prepare_array("--on", "slurm", "--environment", "").partition("\n")
    assert (
        plan.strip() == r"valle prepare --source /data/a\ b --out /data/set --plan-only --shard-index 0 --num-shards 3"
    )
    assert "#SBATCH --array=0-2\n" in script and "#SBATCH --cpus-per-task=4\n" in script
    (tmp_path / "valle").write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    (tmp_path / "valle").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.stdout.split("|")[:-1] == [*PREPARE, "--processes", "4"]


def test_prepare_array_for_kubernetes():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(prepare_array("--on", "kubernetes", "--image", "image:1", "--claim", "shared", "--cpus", "8"))
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == 3
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["valle", *PREPARE, "--processes", "8", "--num-shards", "3"]
    assert container["resources"]["requests"] == {"cpu": "8", "memory": "8Gi"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--", "train"], "--nodes is missing"),
        (["--nodes", "2"], "nothing to run"),
        (["--node", "2", "--", "train"], "unknown option --node"),
        (["--nodes"], "--nodes needs a value"),
        (["2", "--", "train"], "unexpected argument 2"),
    ],
)
def test_refusals(arguments, message):
    done = run("slurm", *arguments)
    assert done.returncode == 2 and message in done.stderr
