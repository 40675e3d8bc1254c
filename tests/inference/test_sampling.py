"""The decoding rules against what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
        (Sampling(min_p=0.29), {0, 1, 2}),  # 0.15 / 0.5 = 0.3
        (Sampling(min_p=0.31), {0, 1}),
        (Sampling(min_p=1.0), {0}),
        (Sampling(min_p=1e-30), {0, 1, 2, 3}),
    ],
)
def test_truncation_keeps_the_named_codes(sampling, kept):
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert set(_draws(sampling, logits)) == kept


def _kept_by_hand(logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, bool]:
    """Which codes are left, float64 and one code after the other; and whether none lies on a rule's border."""
    clear = True
    logits = logits.astype(np.float64)
    for code, bias in sampling.logit_bias:
        logits[code] += bias
    logits /= sampling.temperature
    kept = np.ones(len(logits), bool)
    order = np.argsort(-logits)
    if sampling.top_k:
        kept[order[sampling.top_k :]] = False
    p = np.where(kept, np.exp(logits - logits.max()), 0)
    p /= p.sum()
    if sampling.top_p < 1:
        reached = 0.0
        for code in order:
            clear &= abs(reached - sampling.top_p) > 1e-5
            kept[code] &= reached < sampling.top_p
            reached += p[code]
    if sampling.min_p:
        clear &= bool((np.abs(p / p.max() - sampling.min_p) > 1e-5).all())
        kept &= p >= sampling.min_p * p.max()
    return kept, clear


@settings(max_examples=100, deadline=None)
@given(
    # Distinct, so that no two codes tie; 12 is one shape for all.
    st.permutations([0.5 * i for i in range(-6, 6)]),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(0, 13),
    st.floats(0.01, 1.0),
    st.floats(0.0, 1.0),
    st.dictionaries(st.integers(-1, 10), st.floats(-9, 9).map(lambda x: round(4 * x) / 4 + 0.1), max_size=2),
)
def test_rules_keep_what_a_loop_over_the_codes_keeps(logits, temperature, top_k, top_p, min_p, bias):
    sampling = Sampling(temperature, top_k, top_p, min_p, tuple(bias.items()))
    biased = np.array(logits)
    for code, added in bias.items():
        biased[code] += added
    assume(len(set(biased)) == len(biased))
    left = np.asarray(sampling.truncate(jnp.asarray(logits, jnp.float32)[None]))[0]
    expected, clear = _kept_by_hand(np.array(logits), sampling)
    assume(clear)
    np.testing.assert_array_equal(np.isfinite(left), expected)
    assert expected[biased.argmax()]  # so never is everything excluded
    np.testing.assert_allclose(left[expected], biased[expected] / temperature, rtol=1e-6)


@pytest.mark.parametrize("sampling", [Sampling(top_k=30), Sampling(top_p=0.95), Sampling(top_k=200, top_p=0.5)])
def test_rules_keep_the_same_of_as_many_codes_as_a_codec_has(sampling):
    logits = 3 * np.random.default_rng(0).standard_normal((8, 1025)).astype(np.float32)
    left = np.isfinite(np.asarray(sampling.truncate(jnp.asarray(logits))))
    for row in range(8):
        expected, clear = _kept_by_hand(logits[row], sampling)
        assert clear
        np.testing.assert_array_equal(left[row], expected)


def test_codes_as_probable_as_the_last_that_is_kept_stay_too():
    logits = jnp.array([[1.0, 2.0, 1.0, -jnp.inf, 0.0]])
    for sampling in (Sampling(top_k=2), Sampling(top_p=0.6)):  # 0.53 for the first, 0.2 for each of the next two
        assert np.isfinite(np.asarray(sampling.truncate(logits))).tolist() == [[True, True, True, False, False]]


def test_bias_moves_single_codes_and_the_end():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    shares = np.bincount(_draws(Sampling(logit_bias=((0, -1e9), (-1, np.log(3)))), logits), minlength=4) / 4000
    np.testing.assert_allclose(shares, np.array([0, 0.3, 0.15, 0.15]) / 0.6, atol=4 * 0.5 / 4000**0.5)
    assert set(_draws(Sampling(temperature=0, logit_bias=((2, 5.0),)), logits)) == {2}
    with pytest.raises(UserError, match="code 3 is not in -1 to 2"):
        _draws(Sampling(logit_bias=((3, 1.0),)), logits)


def test_biased_codes_stay_excluded_when_a_repetition_is_drawn_again():
    sampling = Sampling(top_k=1, repetition_window=2, repetition_threshold=0.1, logit_bias=((1, -1e9),))
    recent = jnp.zeros((1, 2), jnp.int32)
    assert set(_draws(sampling, np.log([0.5, 0.3, 0.15, 0.05]), recent=recent)) == {0, 2, 3}


def test_the_most_probable_end_ends_whatever_is_drawn():
    often, seldom = np.log([0.35, 0.25, 0.4]), np.log([0.41, 0.25, 0.34])
    assert set(_draws(Sampling(), often)) == {0, 1, 2}
    assert set(_draws(Sampling(end_if_most_probable=True), often)) == {2}
    assert set(_draws(Sampling(end_if_most_probable=True), seldom)) == {0, 1, 2}
    forbidden = np.array([*often[:2], -np.inf])  # as before the shortest length
    assert set(_draws(Sampling(end_if_most_probable=True), forbidden)) == {0, 1}


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
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"logit_bias": ((1, float("-inf")),)},
        {"logit_bias": ((1, 1.0), (1, 2.0))},
        {"repetition_window": -1},
    ],
)
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(UserError):
        Sampling(**wrong)
