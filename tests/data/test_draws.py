"""Counter-based draws: fixed values, uniformity, permutations."""

import numpy as np
import pytest

from valle_jax.data import draws


def test_fixed_values():
    """Plans and prompts of every earlier run depend on these numbers, so they may never change."""
    key = draws.key(0, 1, "prompt")
    assert key == 8275358263187951472
    assert draws.bits(key, np.arange(3)).tolist() == [5748463895784187738, 2247507016496132430, 15401861056617249771]
    assert draws.below(key, np.arange(8), 10).tolist() == [3, 1, 8, 5, 8, 5, 0, 6]
    assert draws.permutation(key, 8).tolist() == [6, 1, 0, 3, 5, 7, 2, 4]


def test_draws_are_uniform():
    counts = np.bincount(draws.below(draws.key(1), np.arange(70_000), 7), minlength=7)
    # 5 standard deviations of a count of 10,000.
    assert abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 6 / 7)
    neighbours = draws.below(draws.key(1), np.arange(50_000), 2) == draws.below(draws.key(2), np.arange(50_000), 2)
    assert abs(neighbours.mean() - 0.5) < 0.012


def test_bounds_per_counter():
    bounds = np.array([1, 2, 3, 2**31])
    drawn = draws.below(draws.key("x"), np.arange(4), bounds)
    assert (drawn >= 0).all() and (drawn < bounds).all()
    assert draws.below(draws.key("x"), 3, 2**31) == drawn[3]


@pytest.mark.parametrize("n", [0, 1, 2, 1000, 150_000])
def test_permutation(n):
    order = draws.permutation(draws.key(5), n)
    assert order.dtype == np.int32 and np.array_equal(np.sort(order), np.arange(n))
    if n >= 1000:
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 5 / np.sqrt(n)
        assert not np.array_equal(order, draws.permutation(draws.key(6), n))
