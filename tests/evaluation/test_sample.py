"""Values of utterances become figures."""

import numpy as np
import pytest

from valle_jax.evaluation.bootstrap import bootstrap_ratio
from valle_jax.evaluation.sample import Figure, Sample

VALUES = [{"errors": 1, "words": 10, "heard": "a"}, {"errors": 4, "words": 5}, {}, {"errors": 0, "words": 5}]
TRIALS = ["a", "b", "b", "c"]


def test_a_corpus_rate_is_errors_over_words_and_leaves_out_what_was_not_measured():
    estimate = Figure("wer", of="errors", per="words").estimate(VALUES, TRIALS)
    assert estimate == bootstrap_ratio([1, 4, 0], [10, 5, 5])
    assert (estimate.value, estimate.n) == (0.25, 3)


def test_means_and_medians():
    assert Figure("errors", of="errors").estimate(VALUES, TRIALS).value == pytest.approx(5 / 3)
    assert Figure("errors", of="errors", median=True).estimate(VALUES, TRIALS).value == 1


def test_nothing_measured_is_no_figure():
    assert Figure("similarity", of="similarity").estimate(VALUES, TRIALS) is None
    assert Figure("similarity", of="similarity").estimate([], []) is None


def test_takes_of_a_trial_are_drawn_together():
    values = [{"x": float(x)} for x in np.random.default_rng(0).normal(size=30)]
    takes, trials = values * 3, [str(i) for i in range(30)] * 3
    assert Figure("x", of="x").estimate(takes, trials).n == 30


def test_a_sample_of_a_recording_has_no_info():
    sample = Sample("t", "s", "hello", np.zeros(10, np.float32), 16_000)
    assert dict(sample.info) == {} and sample.prompt is None
