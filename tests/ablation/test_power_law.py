"""Power laws whose numbers are known."""

import numpy as np
import pytest

from valle_jax.ablation.power_law import fit_power_law

SIZES = np.geomspace(1e5, 1e8, 7)


@pytest.mark.parametrize(("a", "b", "c"), [(20.0, 0.3, 1.5), (300.0, 0.5, 0.0), (4.0, 0.05, 0.8), (1e9, 1.7, 2.0)])
def test_exact_points_give_their_law(a, b, c):
    losses = a * SIZES**-b + c
    law = fit_power_law(SIZES, losses)
    # The grid of exponents is refined to about 1e-4 of itself; a and c follow from it.
    assert law.b == pytest.approx(b, rel=2e-3)
    assert law.a == pytest.approx(a, rel=3e-2)
    assert law.c == pytest.approx(c, abs=1e-2)
    np.testing.assert_allclose(law(SIZES), losses, atol=1e-3)
    assert law.error < 1e-3


def test_noisy_points_have_an_interval_that_holds_the_truth():
    """95 % by construction; at least 80 of 100 leaves room for the jackknife of seven points."""
    inside = 0
    for seed in range(100):
        losses = 20 * SIZES**-0.3 + 1.5 + np.random.default_rng(seed).normal(0, 0.002, len(SIZES))
        law = fit_power_law(SIZES, losses)
        assert law.low[1] < law.b < law.high[1]
        inside += law.low[1] <= 0.3 <= law.high[1]
    assert inside >= 80


def test_what_does_not_fall_has_no_slope():
    law = fit_power_law(SIZES, np.full(len(SIZES), 2.5))
    assert law(1e6) == pytest.approx(2.5) and law.a == pytest.approx(0)


def test_three_points_say_nothing():
    assert fit_power_law(SIZES[:3], [3.0, 2.0, 1.5]) is None
    assert fit_power_law([1e6] * 5, [3.0, 2.0, 1.5, 1.4, 1.3]) is None
