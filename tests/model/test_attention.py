"""Back ends against each other and against a softmax written out in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.model import masks
from valle_jax.model.attention import attention, xla_attention
from valle_jax.model.blocked_attention import blocked_attention

# Float32 sums of up to 700 products in another order; gradients add a few more of them.
TOLERANCE = 2e-5


def _case(length: int, seed: int = 0):
    """Two rows of packed segments with padding, and bidirectional text in each."""
    rng = np.random.default_rng(seed)
    segment = np.zeros((2, length), np.int32)
    kind = np.zeros((2, length), np.int32)
    for row, edges in enumerate(([0, 37, 300, length - 50], [0, length // 2, length])):
        for number, (begin, end) in enumerate(itertools.pairwise(edges), start=1):
            segment[row, begin:end] = number
            kind[row, begin:end] = 2
            kind[row, begin : begin + (end - begin) // 3] = 1
    q, k, v, g = (jnp.asarray(rng.normal(size=(2, length, 4, 16)), jnp.float32) for _ in range(4))
    return jnp.asarray(segment), jnp.asarray(kind), q, k, v, g


MASKS = {
    "full": lambda segment, kind: masks.full(segment),
    "causal": lambda segment, kind: masks.causal(segment, kind, bidirectional_text=False),
    "bidirectional_text": lambda segment, kind: masks.causal(segment, kind, bidirectional_text=True),
}


def _dense_mask(name: str, segment: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """What the mask's name means, said without intervals: bool [B, T, S]."""
    index = np.arange(segment.shape[1])
    same = (segment[:, :, None] == segment[:, None, :]) & (segment[:, :, None] > 0)
    if name == "full":
        return same
    earlier = index[None, :, None] >= index[None, None, :]
    if name == "bidirectional_text":
        earlier = earlier | ((kind[:, :, None] == 1) & (kind[:, None, :] == 1))
    return same & earlier


@pytest.mark.parametrize("name", MASKS)
def test_intervals_say_what_the_mask_means(name):
    segment, kind, *_ = _case(400)
    start, end = MASKS[name](segment, kind)
    key = np.arange(400)[None, None, :]
    seen = (key >= np.asarray(start)[:, :, None]) & (key < np.asarray(end)[:, :, None])
    np.testing.assert_array_equal(seen, _dense_mask(name, np.asarray(segment), np.asarray(kind)))


@pytest.mark.parametrize("name", MASKS)
def test_xla_attention_is_a_masked_softmax(name):
    segment, kind, q, k, v, _ = _case(400)
    out = xla_attention(q, k, v, *MASKS[name](segment, kind))
    mask = _dense_mask(name, np.asarray(segment), np.asarray(kind))
    scores = np.einsum("btnh,bsnh->bnts", q, k) / 4.0
    weights = np.where(mask[:, None], np.exp(scores), 0.0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    np.testing.assert_allclose(out, np.einsum("bnts,bsnh->btnh", weights, v), atol=TOLERANCE)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("length", [512, 700])
def test_blocked_equals_xla_in_values_and_gradients(name, length):
    segment, kind, q, k, v, g = _case(length)
    interval = MASKS[name](segment, kind)

    def value_and_gradients(kernel):
        return jax.value_and_grad(lambda *x: (kernel(*x, *interval) * g).sum(), argnums=(0, 1, 2))(q, k, v)

    expected, found = value_and_gradients(xla_attention), value_and_gradients(blocked_attention)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-2)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


def test_padding_gets_zeros_and_no_gradient():
    segment, kind, q, k, v, g = _case(512)
    interval = MASKS["causal"](segment, kind)
    for kernel in (xla_attention, blocked_attention):
        out = kernel(q, k, v, *interval)
        assert (np.asarray(out)[np.asarray(segment) == 0] == 0).all()
        gradient = jax.grad(lambda v, kernel=kernel: (kernel(q, k, v, *interval) * g).sum())(v)
        assert (np.asarray(gradient)[np.asarray(segment) == 0] == 0).all()


def test_a_back_end_refuses_what_it_cannot_do():
    q = jnp.zeros((1, 64, 2, 8))
    interval = (jnp.zeros((1, 64), jnp.int32),) * 2
    with pytest.raises(UserError, match="fewer than 256 tokens"):
        attention(q, q, q, interval, backend="blocked")
    attention(q, q, q, interval)  # auto goes on to the next one
