"""Whole runs: what they write, that an interruption changes nothing, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from run_helpers import MESH, VARIABLE, assert_same_params, at_step, loop_config, read_metrics
from train_helpers import write_dataset

from valle_jax.cli import main
from valle_jax.codec.base import CodecInfo
from valle_jax.errors import EXIT_RESTART, UserError, WorkError
from valle_jax.inference.model_dir import flatten
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.train.checkpoint import complete_steps, load_params
from valle_jax.train.loop import train
from valle_jax.train.profiler import parse_steps


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """An uninterrupted run of six steps."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    summary = train(loop_config(), [(dataset, 1.0)], workdir, mesh=MESH)
    assert (summary.step, summary.preempted, summary.nonfinite) == (6, False, 0)
    return workdir


@pytest.fixture(scope="module")
def stopped_at_3(dataset, tmp_path_factory):
    """The same run, which got SIGTERM after step 2 and so ended with step 3. Read only: see `stopped`."""
    workdir = tmp_path_factory.mktemp("runs") / "stopped"
    terminate = at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    summary = train(loop_config(train__sample_every=2), [(dataset, 1.0)], workdir, mesh=MESH, make_sampler=terminate)
    assert (summary.step, summary.preempted) == (3, True)
    assert complete_steps(workdir) == [3]
    return workdir


@pytest.fixture
def stopped(stopped_at_3, tmp_path):
    """A copy of the stopped run's work directory."""
    return shutil.copytree(stopped_at_3, tmp_path / "run")


def test_what_a_run_writes(whole, dataset):
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 4, 5, 6, 6]
    keys = ["step", "loss", "accuracy_top10", "grad_norm", "learning_rate", *VARIABLE, "fill"]
    keys.append("nonfinite_steps")
    assert list(lines[1]) == keys  # no `mfu`: the peak of this processor is not known
    # The first step was compiled in its time, which says nothing about the throughput.
    assert list(lines[0]) == [key for key in keys if key not in ("frames_per_second", "seconds_per_step")]
    accounts = json.loads((whole / "goodput.json").read_text())
    assert accounts["step"] == 6 and accounts["at_checkpoint"].keys() == {"3", "6"}
    assert all(accounts["seconds"][phase] > 0 for phase in ("train", "startup", "compile", "input", "checkpoint"))
    validated = {f"valid_{split}_{name}" for split in ("utterance", "speaker") for name in ("loss", "accuracy_top10")}
    assert set(lines[3]) == set(lines[7]) == {"step", *validated}
    assert lines[3]["valid_utterance_loss"] != lines[3]["valid_speaker_loss"]
    assert all(0.5 < line["fill"] <= 1 for line in lines if "fill" in line)
    run = json.loads((whole / "run.json").read_text())
    assert run["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1} and run["resumed_from_step"] == 0
    assert run["datasets"][0]["path"] == str(dataset) and run["versions"]["jax"] == jax.__version__
    assert run["config"]["model"]["n_symbols"] == 11 and run["config"]["model"]["codebook_size"] == 16
    for name in ("config.json", "vocabulary.json", "codec.json", "tensorboard", "plans", "checkpoints"):
        assert (whole / name).exists()
    assert complete_steps(whole) == [3, 6]


def test_validation_of_the_nar_by_codebook(dataset, tmp_path):
    config = loop_config(stage="nar", train__steps=2)
    values = train(config, [(dataset, 1.0)], tmp_path, mesh=MESH).validation
    for split in ("valid_utterance", "valid_speaker"):
        # Every stage sees the same rows, but a prompt is drawn once per row: the mean of the stages is the whole.
        stages = [values[f"{split}_loss_codebook_{k}"] for k in (2, 3)]
        np.testing.assert_allclose(values[f"{split}_loss"], np.mean(stages), rtol=1e-6)


def test_sigterm_and_resume_are_an_unbroken_run(whole, stopped, dataset):
    """Bit for bit: losses, validation, parameters, average; and the optimizer, as the last steps show."""
    summary = train(loop_config(), [(dataset, 1.0)], stopped, mesh=MESH)
    assert (summary.step, summary.preempted) == (6, False)
    steps, validations = read_metrics(whole)
    resumed_steps, resumed_validations = read_metrics(stopped)
    assert resumed_steps == steps
    assert resumed_validations == validations[1:]  # SIGTERM leaves no time for the validation at step 3
    assert_same_params(whole, stopped, step=6)
    assert json.loads((stopped / "run.json").read_text())["resumed_from_step"] == 3


def test_a_crash_between_checkpoints_is_repeated(whole, dataset, tmp_path):
    def crash():
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train(
            loop_config(train__sample_every=5),
            [(dataset, 1.0)],
            tmp_path,
            mesh=MESH,
            make_sampler=at_step(5, crash),
        )
    assert complete_steps(tmp_path) == [3] and read_metrics(tmp_path)[0][-1]["step"] == 5
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    train(loop_config(), [(dataset, 1.0)], tmp_path, mesh=MESH)
    assert read_metrics(tmp_path) == read_metrics(whole)
    assert_same_params(whole, tmp_path, step=6)


def test_a_trace_of_the_steps_that_were_asked_for(stopped, dataset):
    """The trace starts in front of step 5 and ends in front of step 6."""
    train(loop_config(), [(dataset, 1.0)], stopped, mesh=MESH, profile_steps=parse_steps("5:6"))
    (trace,) = (stopped / "profile").rglob("*.xplane.pb")
    assert b"PjitFunction(train_step)" in trace.read_bytes()
    for text in ("5", "5:5", "0:3", "a:b"):
        with pytest.raises(UserError, match="is not of the form FIRST:END"):
            parse_steps(text)


def test_a_finished_run_is_left_alone(whole, dataset):
    before = (whole / "metrics.jsonl").read_text()
    summary = train(loop_config(), [(dataset, 1.0)], whole, mesh=MESH)
    assert summary.step == 6 and (whole / "metrics.jsonl").read_text() == before


def test_resume_on_another_mesh(whole, stopped, dataset):
    train(loop_config(), [(dataset, 1.0)], stopped, mesh={"data": 1, "fsdp": 2, "tensor": 2})
    (steps, validations), (mine, my_validations) = read_metrics(whole), read_metrics(stopped)
    assert [line["step"] for line in mine] == [1, 2, 3, 4, 5, 6]
    for expected, line in zip(steps + validations[1:], mine + my_validations, strict=True):
        for name, value in expected.items():
            # Sums in another order: float32 roundings, carried over three steps.
            np.testing.assert_allclose(line[name], value, rtol=1e-4 if name == "grad_norm" else 1e-5, err_msg=name)
    for name, value in flatten(load_params(stopped, "latest").params).items():
        np.testing.assert_allclose(value, flatten(load_params(whole, "latest").params)[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_killed_and_terminated_processes_resume(dataset, tmp_path, capsys):
    """`valle train` gets SIGTERM, is started again, gets SIGKILL, is started again: the metrics of an unbroken run."""
    config = loop_config(train__steps=160, train__checkpoint_every=20, train__evaluate_every=80)
    settings = [
        f"--set={section}.{name}={value}"
        for section, values in config.to_json().items()
        for name, value in values.items()
    ]

    def arguments(workdir):
        return ["train", "--preset=tiny", "--stage=ar", f"--data={dataset}", f"--workdir={workdir}", "--mesh=data=2"]

    def interrupt(with_signal, after_step):
        command = [sys.executable, "-m", "valle_jax.cli", *arguments(tmp_path / "cut"), *settings]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while (complete_steps(tmp_path / "cut") or [0])[-1] <= after_step and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(with_signal)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    code, output, errors = interrupt(signal.SIGTERM, after_step=0)
    (step,) = complete_steps(tmp_path / "cut")[-1:]
    assert code == EXIT_RESTART and not output, errors
    assert errors.endswith(f"{tmp_path / 'cut'}: preempted, saved at step {step}; the same command goes on\n")
    assert step < 160 and read_metrics(tmp_path / "cut")[0][-1]["step"] == step
    code, _, errors = interrupt(signal.SIGKILL, after_step=step)
    assert code == -signal.SIGKILL, errors
    assert step < complete_steps(tmp_path / "cut")[-1] < 160
    for workdir in ("cut", "whole"):
        main([*arguments(tmp_path / workdir), *settings])
        assert capsys.readouterr().out == f"{tmp_path / workdir}: trained to step 160\n"
    steps, validations = read_metrics(tmp_path / "cut")
    assert [line["step"] for line in steps] == list(range(1, 161))
    assert steps == read_metrics(tmp_path / "whole")[0]
    assert [v for v in read_metrics(tmp_path / "whole")[1] if v in validations] == validations
    assert_same_params(tmp_path / "cut", tmp_path / "whole", step=160)


def test_several_datasets_by_weight(whole, dataset, tmp_path, capsys):
    other = write_dataset(tmp_path / "other", seed=1)
    both = [(dataset, 3.0), (other, 1.0)]
    config = loop_config()
    train(config, both, tmp_path / "run", mesh=MESH)
    described = capsys.readouterr().err
    assert f"{dataset}: 48 utterances" in described and "weight 3" in described and "weight 1" in described
    # One row of the four is the other dataset's.
    assert read_metrics(tmp_path / "run")[0][0]["loss"] != read_metrics(whole)[0][0]["loss"]
    with pytest.raises(UserError, match=r"holds a run with data\.datasets\.1\.weight=1\.0, this command asks for 2\.0"):
        train(config, [(dataset, 3.0), (other, 2.0)], tmp_path / "run", mesh=MESH)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model__d_model": 32}, r"holds a run with model\.d_model=16, this command asks for 32"),
        ({"model__stage": "nar"}, r"holds a run with model\.stage=ar, this command asks for nar"),
        ({"data__row_length": 64}, r"holds a run with data\.row_length=48, this command asks for 64"),
        ({"train__seed": 1}, r"holds a run with data\.seed=0, this command asks for 1"),
        ({"model__n_symbols": 7}, r"model\.n_symbols=7 but dataset .* has 11"),
        ({"data__row_length": 5}, r"no usable training utterances: all 48 are longer than data\.row_length=5"),
        (
            {"train__rows": 5},
            r"5 rows per microbatch .* not divisible by mesh data=2 x fsdp=1; use a multiple of 2",
        ),
    ],
)
def test_settings_that_do_not_fit(stopped_at_3, dataset, tmp_path, settings, message):
    # What depends on the dataset alone is told before what the work directory holds.
    workdir = stopped_at_3 if "holds" in message else tmp_path / "new"
    with pytest.raises(UserError, match=message):
        train(loop_config(**settings), [(dataset, 1.0)], workdir, mesh=MESH)


def test_another_dataset_does_not_continue_a_run(stopped_at_3, tmp_path):
    changed = write_dataset(tmp_path / "changed", seed=1)
    with pytest.raises(UserError, match=r"data\.datasets\.0\.fingerprint=\w+, this command asks for \w+; resume with"):
        train(loop_config(), [(changed, 1.0)], stopped_at_3, mesh=MESH)


@pytest.mark.parametrize(
    "mesh, message",
    [
        ({"data": 16}, "needs 16 devices, there are 8"),
        ({"data": 8}, "4 rows per microbatch .* not divisible by mesh data=8 x fsdp=1"),
        ({"tensor": 4}, r"model\.n_heads=2 is not divisible by mesh tensor=4"),
    ],
)
def test_meshes_that_do_not_divide(dataset, tmp_path, mesh, message):
    with pytest.raises(UserError, match=message):
        train(loop_config(), [(dataset, 1.0)], tmp_path / "run", mesh=mesh)
    assert not (tmp_path / "run").exists()


def test_datasets_of_two_codecs_or_vocabularies(dataset, tmp_path):
    other_codec = write_dataset(tmp_path / "codec", codec=CodecInfo("mel_rvq", 24_000, 75.0, 3, 16, "1" * 16))
    other_table = write_dataset(tmp_path / "table", vocabulary=Vocabulary("other", tuple("gfedcba ")))
    for other, word in ((other_codec, "codec"), (other_table, "vocabulary")):
        with pytest.raises(UserError, match=f"{dataset} was made with {word} .* but {other} with"):
            train(loop_config(), [(dataset, 1.0), (other, 1.0)], tmp_path / "run", mesh=MESH)
        assert not (tmp_path / "run").exists()


def test_a_half_written_checkpoint_is_never_chosen(whole, stopped, dataset):
    """A folder of a later step without what Orbax writes last, and one under Orbax's temporary name."""
    newest = stopped / "checkpoints" / "5"
    shutil.copytree(stopped / "checkpoints" / "3", newest)
    (newest / "_CHECKPOINT_METADATA").unlink()
    temporary = stopped / "checkpoints" / "6.orbax-checkpoint-tmp"
    shutil.copytree(stopped / "checkpoints" / "3", temporary)
    assert complete_steps(stopped) == [3] and load_params(stopped, "latest").step == 3
    train(loop_config(), [(dataset, 1.0)], stopped, mesh=MESH)
    assert read_metrics(stopped)[0] == read_metrics(whole)[0]
    assert complete_steps(stopped) == [3, 6] and not newest.exists() and not temporary.exists()


def test_non_finite_steps_end_the_run_and_keep_good_checkpoints(stopped, dataset):
    """An absurd learning rate makes step 4 end in parameters whose loss is not finite."""
    config = loop_config(
        optimizer__learning_rate=1e38, train__steps=20, train__checkpoint_every=1, train__keep_checkpoints=2
    ).override({"train.max_nonfinite": 3})
    with pytest.raises(WorkError, match=r"not finite in 3 steps in a row, up to step 7; .* Lower optimizer"):
        train(config, [(dataset, 1.0)], stopped, mesh=MESH)
    assert complete_steps(stopped) == [3, 4]
    lines = read_metrics(stopped)[0]
    assert [line["nonfinite_steps"] for line in lines] == [0, 0, 0, 0, 1, 2, 3]
    assert np.isfinite(lines[3]["loss"]) and lines[4]["loss"] is None
