"""The decoding rules against what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.inference.sampling import Sampling

NO_RECENT = jnp.zeros((1, 0), jnp.int32)


def _draws(sampling: Sampling, logits, n: int = 4000, recent=NO_RECENT) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), n)
    rows = jnp.tile(jnp.asarray(logits, jnp.float32)[None], (n, 1))
    return np.asarray(sampling.draw(rows, keys, jnp.tile(recent, (n, 1))))


def test_temperature_zero_is_greedy():
    assert set(_draws(Sampling(temperature=0), [0.0, 3.0, 2.9])) == {1}


def test_plain_sampling_follows_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    shares = np.bincount(_draws(Sampling(), np.log(p)), minlength=4) / 4000
    # Four standard errors of a share over 4,000 draws.
    np.testing.assert_allclose(shares, p, atol=4 * 0.5 / 4000**0.5)


def test_temperature_divides_the_logits():
    logits = np.array([[0.2, 1.0, -2.0]], np.float32)
    np.testing.assert_allclose(Sampling(temperature=0.5).truncate(jnp.asarray(logits)), logits * 2)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), {0, 1}),
        (Sampling(top_k=99), {0, 1, 2, 3}),
        (Sampling(top_p=0.5), {0}),  # code 0 alone reaches it
        (Sampling(top_p=0.51), {0, 1}),
        (Sampling(top_p=0.79), {0, 1}),
        (Sampling(top_p=0.81), {0, 1, 2}),
        (Sampling(top_p=1e-6), {0}),  # the most probable code always stays
        (Sampling(top_k=3, top_p=0.6), {0, 1}),  # of the three that are left, 0.5 / 0.95 < 0.6
    ],
)
def test_truncation_keeps_the_named_codes(sampling, kept):
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert set(_draws(sampling, logits)) == kept


def test_repetition_aware_sampling_leaves_the_nucleus_only_when_it_repeats():
    """P2, section 3.3: the nucleus holds code 0 alone; a loop of zeros is left by a draw from all codes."""
    sampling = Sampling(top_p=0.4, repetition_window=10, repetition_threshold=0.1)
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    fresh = jnp.arange(1, 11, dtype=jnp.int32)[None]
    assert set(_draws(sampling, logits, recent=fresh)) == {0}
    once = fresh.at[0, 3].set(0)  # a share of 0.1 does not exceed the threshold
    assert set(_draws(sampling, logits, recent=once)) == {0}
    shares = np.bincount(_draws(sampling, logits, recent=once.at[0, 4].set(0)), minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=4 * 0.5 / 4000**0.5)


def test_a_row_does_not_depend_on_its_neighbours():
    logits = jax.random.normal(jax.random.key(1), (5, 50))
    keys = jax.random.split(jax.random.key(2), 5)
    together = Sampling(top_k=20).draw(logits, keys, jnp.zeros((5, 0), jnp.int32))
    alone = Sampling(top_k=20).draw(logits[3:4], keys[3:4], NO_RECENT)
    assert int(together[3]) == int(alone[0])


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"repetition_window": -1}]
)
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(UserError):
        Sampling(**wrong)
