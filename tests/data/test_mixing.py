"""Shares of several datasets in one stream."""

import pytest

from valle_jax.data.mixing import Mixture
from valle_jax.errors import UserError


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1.0,), [1]),
        ((0.1, 0.2), [1, 2]),
        ((2.5, 1, 0.5), [5, 2, 1]),
        ((1 / 3, 2 / 3), [1, 2]),
        ((0.333, 0.667), [333, 667]),
        ((1.0, 1e-9), [999, 1]),
        ((3**0.5, 2**0.5), [551, 449]),
    ],
)
def test_counts_of_a_cycle(weights, counts):
    assert Mixture(weights).counts == counts


@pytest.mark.parametrize("weights", [(1.0,), (1, 2), (2.5, 1, 0.5), (3**0.5, 2**0.5), (1, 1, 1, 7)])
def test_every_row_of_every_dataset_comes_once_in_order_and_evenly(weights):
    mixture = Mixture(weights)
    cycle = sum(mixture.counts)
    seen = [0] * len(weights)
    for row in range(2 * cycle):
        dataset, dataset_row = mixture[row]
        assert dataset_row == seen[dataset]
        seen[dataset] += 1
        # Never more than a row away from the share of the weights.
        for count, total in zip(mixture.counts, seen, strict=True):
            assert abs(total - count * (row + 1) / cycle) < len(weights)
    assert seen == [2 * n for n in mixture.counts]


def test_far_rows_cost_nothing():
    mixture = Mixture((1, 3))
    offset = (10**15, 3 * 10**15)
    near = [mixture[i] for i in range(4)]
    assert [mixture[4 * 10**15 + i] for i in range(4)] == [(d, offset[d] + row) for d, row in near]


@pytest.mark.parametrize("weights", [(), (0.0,), (1, -1)])
def test_weights_must_be_positive(weights):
    with pytest.raises(UserError, match="weights must be positive"):
        Mixture(weights)
