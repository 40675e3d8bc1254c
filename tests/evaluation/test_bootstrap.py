"""Bootstrap intervals: they cover what they should, repeat with a seed, and shrink with the sample."""

import json

import numpy as np
import pytest

from valle_jax.evaluation.bootstrap import bootstrap_median, bootstrap_ratio

TRIALS = 300
# Of a 95 % interval over 300 test sets: three standard errors of a binomial share are 0.038, and the percentile
# bootstrap is known to cover a little less than its level on skewed samples of 60.
COVERAGE = (0.89, 0.985)


def _coverage(estimate, truth: float) -> float:
    """Share of the trials whose interval holds the truth."""
    random = np.random.default_rng(0)
    estimates = [estimate(random) for _ in range(TRIALS)]
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def test_interval_of_a_mean_covers_the_true_mean():
    share = _coverage(lambda random: bootstrap_ratio(random.exponential(2.0, 60), resamples=400), 2.0)
    assert COVERAGE[0] <= share <= COVERAGE[1]


def test_interval_of_an_error_rate_covers_the_true_rate():
    """Utterances of different lengths: the rate is errors over words, not the mean of the utterances' rates."""

    def estimate(random):
        words = random.integers(1, 12, 60)
        return bootstrap_ratio(random.binomial(words, 0.3), words, resamples=400)

    assert COVERAGE[0] <= _coverage(estimate, 0.3) <= COVERAGE[1]


def test_interval_of_a_median_covers_the_true_median():
    share = _coverage(lambda random: bootstrap_median(random.exponential(1.0, 61), resamples=400), np.log(2))
    assert COVERAGE[0] <= share <= COVERAGE[1]


def test_interval_has_the_width_of_the_central_limit_theorem():
    values = np.random.default_rng(1).normal(5, 2, 400)
    for level, deviations in ((0.95, 1.96), (0.5, 0.674)):
        estimate = bootstrap_ratio(values, level=level, resamples=8_000)
        # 8,000 resamples place a quantile within 2 % or so of the width; 10 % is five times that.
        assert (estimate.high - estimate.low) / 2 == pytest.approx(deviations * values.std() / 20, rel=0.1)


def test_value_is_that_of_the_sample():
    estimate = bootstrap_ratio([1, 0, 3], [10, 5, 5])
    assert (estimate.value, estimate.n) == (0.2, 3)
    assert estimate.low <= 0.2 <= estimate.high
    assert bootstrap_ratio([1, 2, 6]).value == 3
    assert bootstrap_median([1, 2, 6]).value == 2
    assert json.loads(json.dumps(estimate.to_json())) == {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": 3,
    }


def test_equal_utterances_leave_no_doubt():
    assert bootstrap_ratio([2] * 5, [4] * 5).to_json() == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 5}


@pytest.mark.parametrize("bootstrap", [bootstrap_ratio, bootstrap_median])
def test_a_seed_repeats(bootstrap):
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


@pytest.mark.parametrize("bootstrap", [bootstrap_ratio, bootstrap_median])
def test_no_utterances(bootstrap):
    with pytest.raises(ValueError, match="no utterances"):
        bootstrap([])


def test_numerators_and_denominators_belong_together():
    with pytest.raises(ValueError, match="1 numerators but 2 denominators"):
        bootstrap_ratio([1], [1, 2])


@pytest.mark.parametrize("bootstrap", [bootstrap_ratio, bootstrap_median])
def test_takes_of_one_text_are_no_more_evidence_than_the_text(bootstrap):
    values = np.random.default_rng(0).normal(size=41)
    once = bootstrap(values, groups=[str(i).zfill(2) for i in range(41)])
    assert once == bootstrap(values)  # groups of one are utterances
    thrice = bootstrap(np.repeat(values, 3), groups=np.repeat([str(i).zfill(2) for i in range(41)], 3))
    assert thrice.n == 41
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
    alone = bootstrap(np.repeat(values, 3))
    assert alone.high - alone.low < 0.8 * (thrice.high - thrice.low)  # by about the root of 3


@pytest.mark.parametrize("n", [7, 8])
def test_medians_of_drawn_groups_are_those_of_numpy(n):
    """The interval from 1 resample is the median of that resample."""
    values, groups = np.random.default_rng(n).normal(size=n), np.array(["a", "b", "b", "c", "c", "c", "d", "d"][:n])
    for seed in range(20):
        names = np.unique(groups)
        drawn = np.random.default_rng(seed).integers(0, len(names), (1, len(names)))[0]
        resample = np.concatenate([values[groups == names[g]] for g in drawn])
        estimate = bootstrap_median(values, groups=groups, resamples=1, seed=seed)
        assert estimate.low == estimate.high == pytest.approx(np.median(resample))


def test_denominators_of_nothing():
    with pytest.raises(ValueError, match="not positive"):
        bootstrap_ratio([1, 2], [0, 0])
