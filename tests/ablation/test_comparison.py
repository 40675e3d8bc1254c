"""What a suite's numbers are made into: power laws, verdicts of controls, the order of columns."""

import dataclasses

import pytest
from train.train_helpers import write_dataset

from valle_jax.ablation.comparison import Cell, compare, is_decisive
from valle_jax.ablation.plan import Training, make_plan
from valle_jax.ablation.report import write_report
from valle_jax.ablation.suite import load_suite
from valle_jax.ablation.training_record import TrainingRecord
from valle_jax.evaluation.bootstrap import Estimate


def loss_of(parameters: float, hours: float) -> float:
    """A law in both, as Kaplan's and Hoffmann's are."""
    return 1.5 + 30 * parameters**-0.3 + 0.4 * hours**-0.5


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """The suite `scale` as if it had been trained on 100 hours, with the losses of `loss_of`."""
    out = tmp_path_factory.mktemp("out")
    data = str(write_dataset(out / "data"))
    suite = load_suite("scale")
    plan = make_plan(suite, Training("tiny", (data,), {"ar": {}, "nar": {}}), out)
    records = {}
    for run in plan.trainings:
        model, share, steps = run.config.model, run.config.data.share, run.config.train.steps
        parameters = 12 * model.n_layers * model.d_model**2
        loss = loss_of(parameters, 100 * share) if steps > 1 else 6.9
        curve = [(1, 7.0), (steps, loss)]
        records[run.name] = TrainingRecord(
            run.name, "ar", steps, parameters, share, loss, curve, curve, 1e9 * steps, 60.0, "cpu x 1"
        )
    return compare(plan, records, {}, out, 100.0, {"seed": 0}), out


def test_power_laws_over_both_sizes(scaled):
    comparison, _ = scaled
    by = {over: [fit for fit in comparison.fits if fit.over == over] for over in ("parameters", "hours")}
    assert [len(fits) for fits in by.values()] == [4, 5]  # at each share of the data; at each width
    # What does not grow only adds to the constant. The exponents' grid is refined to about 1e-4 of itself.
    for fit in by["parameters"]:
        assert fit.law.b == pytest.approx(0.3, rel=1e-2) and fit.law.a == pytest.approx(30, rel=0.1)
    for fit in by["hours"]:
        assert fit.law.b == pytest.approx(0.5, rel=1e-2) and fit.law.a == pytest.approx(0.4, rel=0.05)
        assert fit.sizes == (12.5, 25.0, 50.0, 100.0)
    whole = next(fit for fit in by["parameters"] if fit.fixed.startswith("100 h"))
    assert whole.law.c == pytest.approx(1.5 + 0.4 * 100**-0.5, rel=1e-2)


def test_the_control_is_no_point_of_a_fit(scaled):
    comparison, _ = scaled
    assert all(6.9 not in fit.losses for fit in comparison.fits)
    control = comparison.lines[-1]
    assert control.control is True and control.cells["ar loss"].verdict == "worse"
    baseline = next(line for line in comparison.lines if line.member == comparison.suite.baseline)
    assert baseline.control is None and baseline.cells["ar loss"].verdict == ""


def test_the_report_holds_it(scaled):
    comparison, out = scaled
    pytest.importorskip("matplotlib")
    write_report(out / "scale", comparison)
    text = (out / "scale" / "report.md").read_text()
    assert "## Power laws: loss = a N^-b + c" in text and "| parameters | 100 h of speech | 5 |" in text
    assert {path.name for path in (out / "scale" / "pictures").iterdir()} == {"ar_loss.png", "power_laws.png"}
    row = next(line for line in text.splitlines() if line.startswith("| width 64, data 0.125 |"))
    assert f"{loss_of(12 * 4 * 64**2, 12.5):.2f} worse" in row


def test_figures_that_are_0_everywhere_are_a_note_and_no_columns(scaled):
    comparison, out = scaled
    pytest.importorskip("matplotlib")
    zero, one = Cell(Estimate(0.0, 0.0, 0.0, 4)), Cell(Estimate(0.25, 0.0, 0.5, 4))
    first, *others = comparison.lines
    lines = [dataclasses.replace(line, cells={**line.cells, "loop": zero, "silent": zero}) for line in others]
    lines = [dataclasses.replace(first, cells={**first.cells, "loop": zero, "silent": one}), *lines]
    write_report(out / "zero", dataclasses.replace(comparison, lines=tuple(lines)))
    text = (out / "zero" / "report.md").read_text()
    assert "|  | silent | ar loss |" in text
    assert "0 in every row: loop." in text


def test_decisive_figures_are_known_by_how_their_names_begin():
    suite = load_suite("sampling")
    assert is_decisive(suite, "bad_takes:bad_takes") and is_decisive(suite, "words_digits:wer")
    assert not is_decisive(suite, "words_digits:cer") and not is_decisive(suite, "similarity_x:similarity_prompt")
