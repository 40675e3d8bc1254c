"""Work directories in an object store: the same runs, and another machine goes on with them."""

import json
import pathlib
import time

import jax
import numpy as np
import pytest
from checkpoint_helpers import CONFIG, state_of, value_of
from jax.experimental.compilation_cache import compilation_cache
from run_helpers import SETTINGS, STEPS, Job, loop_config, losses
from train_helpers import CODEC, VOCABULARY

from valle_jax.errors import RestartError, UserError
from valle_jax.train.checkpoint import Checkpoints, Progress, complete_steps, load_params
from valle_jax.train.loop import train
from valle_jax.train.mirror import Mirror

URL = "gs://bucket/runs/ar"


def names(bucket):
    """Of the files of the work directory, without the checkpoints."""
    found = {name.removeprefix("runs/ar/") for name in bucket.objects if name.startswith("runs/ar/")}
    return {name for name in found if not name.startswith("checkpoints/")}


def test_killed_and_resumed_on_another_machine(bucket, dataset, tmp_path, monkeypatch):
    """Two processes that are killed and two that go on, with nothing but the object store in common."""
    data = bucket.put(dataset, "data")

    def start(machine):
        (tmp_path / machine).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / machine))
        return Job(2, URL, "data=4", dataset=data)

    job = start("first")
    deadline = time.monotonic() + 120
    while "runs/ar/checkpoints/10/commit_success.txt" not in bucket.objects:
        assert time.monotonic() < deadline and job.processes[0].poll() is None, job.finish()
        time.sleep(0.01)
    for process in job.processes:
        process.kill()
    job.finish()
    resumes_from = complete_steps(URL)[-1]
    lines = bucket.objects["runs/ar/metrics.jsonl"][1].decode().splitlines()
    assert resumes_from <= json.loads(lines[-1])["step"] < STEPS  # no checkpoint is ahead of the lines

    codes, errors = start("second").finish()
    assert codes == [0, 0], errors
    assert not list((tmp_path / "second").glob("valle-*"))
    local = tmp_path / "ar"
    local.mkdir()
    for name in ("metrics.jsonl", "goodput.json"):
        (local / name).write_bytes(bucket.objects[f"runs/ar/{name}"][1])
    accounts = json.loads((local / "goodput.json").read_text())
    assert accounts["starts"] == 2 and accounts["step"] == STEPS
    described = {"config.json", "run.json", "vocabulary.json", "codec.json", "metrics.jsonl", "goodput.json"}
    assert {name for name in names(bucket) if not name.startswith("tensorboard/")} == described
    assert any(name.startswith("tensorboard/") and name.endswith(f".from-{resumes_from}") for name in names(bucket))

    whole = tmp_path / "whole"
    train(loop_config(**SETTINGS), [(dataset, 1.0)], whole, mesh={"data": 4})
    # One process sums in another order than two: see test_many_hosts.
    np.testing.assert_allclose(losses(local), losses(whole), rtol=1e-4)
    mine, theirs = load_params(URL), load_params(whole)
    assert (mine.config, mine.codec, mine.step) == (theirs.config, theirs.codec, theirs.step)


def test_compiled_programs_are_kept_in_the_object_store(bucket):
    settings = {"jax_compilation_cache_dir": "gs://bucket/compiled", "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    compilation_cache.reset_cache()
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        jax.jit(lambda x: 3 * x + 1)(np.arange(5))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert any(name.startswith("compiled/jit__lambda") for name in bucket.objects)


def test_a_half_written_checkpoint_is_never_chosen(bucket, fresh):
    checkpoints = Checkpoints(URL, keep=3)
    for step, loss in enumerate([3.0, 1.0, None, None, None], start=1):
        checkpoints.save(state_of(fresh, step), Progress(step, 4 * step, {}), loss)
    checkpoints.close()
    assert complete_steps(URL) == [2, 3, 4, 5]  # the newest three and the best

    prefix = "runs/ar/checkpoints"
    del bucket.objects[f"{prefix}/5/commit_success.txt"]  # the last that is written
    del bucket.objects[f"{prefix}/4/opt_state/_METADATA"]
    bucket.objects[f"{prefix}/6/params/d/half"] = 1, b"half"
    assert complete_steps(URL) == [2, 3]
    for name, value in (("config", CONFIG), ("vocabulary", VOCABULARY), ("codec", CODEC)):
        bucket.objects[f"runs/ar/{name}.json"] = 1, json.dumps(value.to_json()).encode()
    best, latest = load_params(URL), load_params(URL, "latest", ema=False)
    assert (best.step, value_of(best), latest.step, value_of(latest)) == (2, 1.0, 3, 3.0)

    again = Checkpoints(URL, keep=3)
    assert again.progress() == Progress(3, 12, {})
    again.save(state_of(fresh, 4), Progress(4, 16, {}))
    again.close()
    assert complete_steps(URL) == [2, 3, 4]
    assert {name.removeprefix(prefix).split("/")[1] for name in bucket.objects if name.startswith(prefix)} == set("234")


def test_only_what_changed_is_uploaded(bucket):
    bucket.objects["runs/ar/metrics.jsonl"] = 1, b"old\n"
    with Mirror(f"{URL}/", 0) as mirror, Mirror(URL, 1) as other:
        assert (mirror.local / "metrics.jsonl").read_text() == "old\n" and not any(other.local.iterdir())
        for folder in ("plans", "profile/host"):
            (mirror.local / folder).mkdir(parents=True)
            (mirror.local / folder / "file").write_text("new")
        mirror.upload()
        assert bucket.objects["runs/ar/metrics.jsonl"] == (1, b"old\n")
        assert names(bucket) == {"metrics.jsonl", "profile/host/file"}
        (mirror.local / "metrics.jsonl").write_text("old\nnew\n")
    assert bucket.objects["runs/ar/metrics.jsonl"][1] == b"old\nnew\n"
    assert not mirror.local.exists() and not other.local.exists()


def test_a_store_that_refuses(bucket):
    """At the end of a good run it is told; where a run ends by another error, that one is."""
    bucket.refuse = lambda method, target: 403 if method == "POST" else None

    def write(error):
        with Mirror(URL, 0) as mirror:
            (mirror.local / "file").write_text("new")
            if error:
                raise error

    with pytest.raises(RestartError, match=r"cannot access gs://bucket/runs/ar/file: .*credentials$"):
        write(None)
    with pytest.raises(UserError, match="mistake"):
        write(UserError("mistake"))


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("s3://bucket/run", "s3://bucket/run: a work directory is a local folder or gs://BUCKET/FOLDER"),
        ("gs://no-such-bucket/run", "gs://no-such-bucket/run: there is no such bucket; create it first"),
    ],
)
def test_work_directories_that_are_refused(bucket, dataset, workdir, message):
    with pytest.raises(UserError, match=message):
        train(loop_config(), [(dataset, 1.0)], workdir)
    with pytest.raises(UserError, match=message):
        load_params(workdir)
    assert not pathlib.Path("gs:").exists()
