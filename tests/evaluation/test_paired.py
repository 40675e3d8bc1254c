"""Paired differences on known answers."""

import numpy as np
import pytest

from valle_jax.evaluation.paired import NO_DIFFERENCE, differs, paired_difference, verdict
from valle_jax.evaluation.sample import Figure

WER = Figure("wer", of="errors", per="words")
SIMILARITY = Figure("similarity", of="similarity", best=1)
RATIO = Figure("ratio", of="ratio", median=True, best=1)
RNG = np.random.default_rng(0)
TRIALS = [f"t{i}" for i in range(40)]
HARD = RNG.integers(0, 6, 40)  # errors of a trial, whoever says it: what pairs have in common


def _errors(extra) -> list[dict]:
    return [{"errors": float(e), "words": 10.0} for e in HARD + extra]


def test_a_system_does_not_differ_from_itself():
    same = paired_difference(WER, _errors(0), TRIALS, _errors(0), TRIALS)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 40)
    assert not differs(same) and verdict(WER, same) == NO_DIFFERENCE


def test_a_planted_error_in_every_trial_is_found_exactly():
    more = paired_difference(WER, _errors(1), TRIALS, _errors(0), TRIALS)
    assert (more.value, more.low, more.high) == pytest.approx((0.1, 0.1, 0.1))
    assert verdict(WER, more) == "worse"
    assert verdict(WER, paired_difference(WER, _errors(0), TRIALS, _errors(1), TRIALS)) == "better"


def test_noise_shows_no_difference_and_covers_zero_about_as_often_as_it_says():
    shown = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(size=(2, 30))
        rows = [[{"similarity": x} for x in line] for line in noise]
        difference = paired_difference(SIMILARITY, rows[0], TRIALS[:30], rows[1], TRIALS[:30])
        shown += differs(difference)
    assert shown <= 15  # 5 expected; 15 has a probability below 1e-4


def test_only_common_trials_count_and_takes_go_with_their_trial():
    mine = [{"similarity": 0.9}] * 3 + [{"similarity": 0.1}]
    base = [{"similarity": 0.5}, {"similarity": 100.0}]
    difference = paired_difference(SIMILARITY, mine, ["a", "a", "b", "x"], base, ["a", "y"])
    assert (difference.value, difference.n) == (pytest.approx(0.4), 1)
    assert paired_difference(SIMILARITY, mine, ["a"] * 4, base, ["y", "z"]) is None
    assert paired_difference(SIMILARITY, [{}], ["a"], [{"similarity": 1.0}], ["a"]) is None


def test_medians():
    one, two = ([{"ratio": x + shift} for x in np.linspace(0.8, 1.2, 21)] for shift in (0.5, 0.0))
    names = TRIALS[:21]
    difference = paired_difference(RATIO, one, names, two, names)
    assert difference.value == pytest.approx(0.5) and differs(difference)
    assert verdict(RATIO, difference) == "different"  # from 1 to 1.5: the sign does not say which is better


def test_higher_similarity_is_better():
    high, low = ([{"similarity": x}] * 5 for x in (0.8, 0.2))
    assert verdict(SIMILARITY, paired_difference(SIMILARITY, high, TRIALS[:5], low, TRIALS[:5])) == "better"
    assert verdict(SIMILARITY, None) == NO_DIFFERENCE
