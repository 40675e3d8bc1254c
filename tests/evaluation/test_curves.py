"""Reference curves on runs with known losses."""

import json

import numpy as np
import pytest

from valle_jax.cli import main
from valle_jax.config import Config
from valle_jax.configs import get_preset
from valle_jax.errors import UserError
from valle_jax.evaluation.curves import Curve, Run, compare, differences, record, shipped


def _workdir(folder, *, seed: int = 0, offset: float = 0.0, last: int = 1000, every: int = 10, **settings):
    """What `valle train` leaves, with a loss that falls from 7 towards 2, a line of it every so many steps."""
    folder.mkdir(parents=True)
    config = Config().override({"train.seed": seed} | {k.replace("__", "."): v for k, v in settings.items()})
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "run.json").write_text(json.dumps({"datasets": [{"fingerprint": "f" * 16}]}))
    (folder / "codec.json").write_text(json.dumps({"name": "mel_rvq", "weight_hash": "0" * 16}))
    rng = np.random.default_rng(seed)
    lines = [{"step": 0, "valid_utterance_loss": 7.0}]
    for step in range(every, last + 1, every):
        loss = 2 + 5 * np.exp(-step / 300) + rng.normal(0, 0.05) + offset
        lines.append({"step": step, "loss": loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def curve(tmp_path) -> Curve:
    """Of three runs."""
    return record([Run.load(_workdir(tmp_path / f"reference{s}", seed=s)) for s in range(3)], "c", "three seeds")


@pytest.mark.parametrize("every", [1, 10, 50])
def test_another_seed_is_within_and_shifted_losses_are_not(curve, tmp_path, every):
    points = compare(curve, Run.load(_workdir(tmp_path / "healthy", seed=7, every=every)))
    assert points[0].step == max(curve.steps[0], every)
    assert sum(p.verdict == "within" for p in points) >= 0.95 * len(points) > 15
    for offset, verdict in ((0.4, "above"), (-0.4, "below")):
        shifted = compare(curve, Run.load(_workdir(tmp_path / verdict, seed=7, every=every, offset=offset)))
        assert {p.verdict for p in shifted} == {verdict}


def test_the_curve_follows_the_losses(curve):
    expected = 2 + 5 * np.exp(-np.array(curve.steps) / 300)
    # The mean of three runs, of one line each at first: 0.05 / sqrt(3) = 0.03 of the noise.
    np.testing.assert_allclose(curve.loss, expected, atol=0.09)
    assert all(least < loss < most for least, loss, most in zip(curve.least, curve.loss, curve.most, strict=True))
    assert curve.noise == pytest.approx(0.05, rel=0.25)  # of 300 lines
    assert curve.steps[-1] == 900  # behind it the lines within a tenth are not all there


def test_a_range_is_the_narrower_the_more_lines_there_are(curve):
    low, high = curve.bounds(np.array([900.0, 900.0]), np.array([1, 81]))
    assert curve.lines[0] == 1 and curve.lines[-1] == 19  # 810 to 990
    np.testing.assert_allclose(high - curve.most[-1], [2 * curve.noise * np.sqrt(1 + 1 / 19), 0.02 * curve.loss[-1]])
    np.testing.assert_allclose(high - curve.most[-1], curve.least[-1] - low)


def test_a_run_is_compared_as_far_as_it_has_come(curve, tmp_path):
    points = compare(curve, Run.load(_workdir(tmp_path / "young", last=300)))
    assert points and points[-1].step == 300


def test_curves_are_saved_and_runs_of_different_settings_make_none(curve, tmp_path):
    curve.save(tmp_path / "c.json")
    assert Curve.load(tmp_path / "c.json") == curve
    other = Run.load(_workdir(tmp_path / "other", model__dropout=0.0))
    with pytest.raises(UserError, match="too few steps"):
        record([Run.load(_workdir(tmp_path / "short", last=20))], "c", "")
    with pytest.raises(UserError, match=r"model\.dropout"):
        record([Run.load(tmp_path / "reference0"), other], "c", "")
    for name in ("missing.json", "reference0/run.json"):
        with pytest.raises(UserError, match="no reference curve"):
            Curve.load(tmp_path / name)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_curve_is_of_what_its_preset_is_now(name):
    curve = shipped()[name]
    preset, stage = name.rsplit("-", 1)
    config = get_preset(preset, stage).to_json()
    of_data = {"model.n_symbols", "model.n_languages", "model.codebooks", "model.codebook_size"}
    now = {f"{part}.{key}": value for part, values in config.items() for key, value in values.items()}
    now |= {key: curve.config[key] for key in of_data}
    assert differences(curve.config, now) == []
    assert curve.name == name and curve.description and curve.loss[0] > curve.loss[-1]


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
    assert "above the range" in said and "within range at 0 of 40 steps; above the range at the last, 900" in said
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
