"""Reference curves on runs with known losses."""

import json

import numpy as np
import pytest

from valle_jax.cli import main
from valle_jax.config import Config
from valle_jax.errors import UserError
from valle_jax.evaluation.curves import Curve, Run, compare, record, shipped


def _workdir(folder, *, seed: int = 0, offset: float = 0.0, last: int = 1000, noise: float = 0.05, **settings):
    """What `valle train` leaves, with a loss that falls from 7 towards 2."""
    folder.mkdir(parents=True)
    config = Config().override({"train.seed": seed} | {k.replace("__", "."): v for k, v in settings.items()})
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "run.json").write_text(json.dumps({"datasets": [{"fingerprint": "f" * 16}]}))
    (folder / "codec.json").write_text(json.dumps({"name": "mel_rvq", "weight_hash": "0" * 16}))
    rng = np.random.default_rng(seed)
    lines = [{"step": 0, "valid_utterance_loss": 7.0}]
    for step in range(10, last + 1, 10):
        loss = 2 + 5 * np.exp(-step / 300) + rng.normal(0, noise) + offset
        lines.append({"step": step, "loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def curve(tmp_path) -> Curve:
    """Of three runs."""
    return record([Run.load(_workdir(tmp_path / f"reference{s}", seed=s)) for s in range(3)], "c", "three seeds")


def test_another_seed_is_within_and_shifted_losses_are_not(curve, tmp_path):
    verdicts = compare(curve, Run.load(_workdir(tmp_path / "healthy", seed=7)))
    assert len(verdicts) == len(curve.steps)
    assert sum(v == "within" for _, _, v in verdicts) >= 0.95 * len(verdicts)
    for offset, verdict in ((0.4, "above"), (-0.4, "below")):
        shifted = compare(curve, Run.load(_workdir(tmp_path / verdict, seed=7, offset=offset)))
        assert {v for _, _, v in shifted} == {verdict}


def test_the_mean_follows_the_losses(curve):
    expected = 2 + 5 * np.exp(-np.array(curve.steps) / 300)
    # Smoothing over 5 lines and 3 runs leaves 0.05 / sqrt(15) = 0.013 of the noise; at the ends it is one-sided.
    np.testing.assert_allclose(curve.loss[1:], expected[1:], atol=0.06)
    assert all(low < loss < high for low, loss, high in zip(curve.low, curve.loss, curve.high, strict=True))


def test_a_run_is_compared_as_far_as_it_has_come(curve, tmp_path):
    verdicts = compare(curve, Run.load(_workdir(tmp_path / "young", last=300)))
    assert verdicts and verdicts[-1][0] <= 300


def test_curves_are_saved_and_runs_of_different_settings_make_none(curve, tmp_path):
    curve.save(tmp_path / "c.json")
    assert Curve.load(tmp_path / "c.json") == curve
    other = Run.load(_workdir(tmp_path / "other", model__dropout=0.0))
    with pytest.raises(UserError, match=r"model\.dropout"):
        record([Run.load(tmp_path / "reference0"), other], "c", "")
    for name in ("missing.json", "reference0/run.json"):
        with pytest.raises(UserError, match="no reference curve"):
            Curve.load(tmp_path / name)


def test_shipped_curves_can_be_read():
    for name, curve in shipped().items():
        assert curve.name == name and curve.description and len(curve.steps) == len(curve.low)


def test_the_command_records_and_compares(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `eval` is not installed")
    runs = [str(_workdir(tmp_path / f"run{s}", seed=s)) for s in range(2)]
    file = tmp_path / "curve.json"
    main(["compare-run", *runs, f"--record={file}", "--description=two seeds"])
    sick = _workdir(tmp_path / "sick", seed=5, offset=1.0, optimizer__learning_rate=1.0)
    main(["compare-run", str(sick), f"--reference={file}"])
    said = capsys.readouterr().out
    assert "reference curve: two seeds" in said
    assert "differs: optimizer.learning_rate=1.0 (reference: 0.0005)" in said
    assert "above the range" in said and "within range at 0 of 40 steps" in said
    assert (sick / "compare_run.png").stat().st_size > 5_000
    main(["compare-run", runs[0], f"--reference={file}"])
    assert "within range at 40 of 40 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "not a work directory"),
        (["{run}", "{run}"], "one run at a time"),
        (["{run}", "--reference=nothing"], "no reference curve 'nothing'"),
    ],
)
def test_mistakes(tmp_path, capsys, arguments, message):
    run = _workdir(tmp_path / "run")
    with pytest.raises(SystemExit) as stop:
        main(["compare-run", *(argument.format(run=run) for argument in arguments)])
    assert stop.value.code == 2 and message in capsys.readouterr().err
