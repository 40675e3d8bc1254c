"""Back ends against each other and against a softmax written out in numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.model import attention as attention_module
from valle_jax.model import masks
from valle_jax.model.attention import BACKENDS, attention, select
from valle_jax.model.blocked_attention import blocked_attention
from valle_jax.model.gpu_attention import cudnn_attention, pallas_gpu_attention
from valle_jax.model.splash_attention import splash_attention
from valle_jax.model.xla_attention import xla_attention

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
    interval = MASKS[name](segment, kind)
    expected = _dense_mask(name, np.asarray(segment), np.asarray(kind))
    np.testing.assert_array_equal(interval.dense(400), expected)
    np.testing.assert_array_equal(interval.seen, expected.any(-1))


@pytest.mark.parametrize("name", MASKS)
def test_xla_attention_is_a_masked_softmax(name):
    segment, kind, q, k, v, _ = _case(400)
    out = xla_attention(q, k, v, MASKS[name](segment, kind))
    mask = _dense_mask(name, np.asarray(segment), np.asarray(kind))
    scores = np.einsum("btnh,bsnh->bnts", q, k) / 4.0
    weights = np.where(mask[:, None], np.exp(scores), 0.0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    np.testing.assert_allclose(out, np.einsum("bnts,bsnh->btnh", weights, v), atol=TOLERANCE)


# Back ends and the patterns that they support; GPU and TPU kernels run in interpret mode, cuDNN's mask in XLA.
KERNELS = {
    "blocked": (blocked_attention, MASKS),
    "splash": (functools.partial(splash_attention, interpret=True), ("full", "causal")),
    "cudnn": (functools.partial(cudnn_attention, implementation="xla"), MASKS),
    "pallas_gpu": (functools.partial(pallas_gpu_attention, interpret=True), ("full", "causal")),
}
CASES = [(backend, name, 384) for backend, (_, names) in KERNELS.items() for name in names]


@pytest.mark.parametrize(("backend", "name", "length"), [*CASES, ("blocked", "causal", 700)])
def test_back_ends_equal_xla_in_values_and_gradients(backend, name, length):
    segment, kind, q, k, v, g = _case(length)
    interval = MASKS[name](segment, kind)

    @functools.partial(jax.jit, static_argnums=0)
    def values_and_gradients(kernel, q, k, v, g, interval):
        out, pullback = jax.vjp(lambda *x: kernel(*x, interval), q, k, v)
        return out, *pullback(g)

    expected = values_and_gradients(xla_attention, q, k, v, g, interval)
    found = values_and_gradients(KERNELS[backend][0], q, k, v, g, interval)
    for which, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE, err_msg=which)
        if which != "dq":  # the gradient of a padding query is zero as well, up to the rounding of its zeros
            assert (np.asarray(a)[np.asarray(segment) == 0] == 0).all(), f"{which} of padding"


def test_splash_computes_in_bfloat16():
    """Products of bfloat16 (8 bits: relative errors of 4e-3) with float32 sums, as the oracle has them."""
    segment, kind, q, k, v, _ = _case(256)
    interval = MASKS["causal"](segment, kind)
    q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    out = splash_attention(q, k, v, interval, interpret=True)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), xla_attention(q, k, v, interval).astype(jnp.float32), atol=0.03)


def _shapes(pattern="causal", tokens=512, keys=None, head_dim=64, dtype=jnp.bfloat16):
    q = jax.ShapeDtypeStruct((2, tokens, 4, head_dim), dtype)
    k = jax.ShapeDtypeStruct((2, keys or tokens, 4, head_dim), dtype)
    bounds = jax.ShapeDtypeStruct((2, tokens), jnp.int32)
    return q, k, masks.Interval(bounds, bounds, pattern)


@pytest.mark.parametrize(
    ("backend", "changes", "reason"),
    [
        ("splash", {"pattern": "mixed"}, "known at trace time"),
        ("splash", {"keys": 640}, "the same tokens"),
        ("splash", {"tokens": 500}, "multiple of 128"),
        ("cudnn", {"dtype": jnp.float32}, "not float32"),
        ("cudnn", {"head_dim": 136}, "head size 136"),
        ("cudnn", {"head_dim": 12}, "head size 12"),
        ("cudnn", {"tokens": 501}, "even number"),
        ("pallas_gpu", {"pattern": "mixed"}, "known at trace time"),
        ("pallas_gpu", {"keys": 640}, "the same tokens"),
        ("pallas_gpu", {"tokens": 500}, "multiple of 128"),
        ("pallas_gpu", {"dtype": jnp.float32}, "not float32"),
        ("pallas_gpu", {"head_dim": 96}, "head size 96"),
        ("blocked", {"tokens": 128}, "fewer than 256"),
        ("blocked", {"keys": 640}, "the same tokens"),
    ],
)
def test_what_a_back_end_refuses(backend, changes, reason):
    (chosen,) = (b for b in BACKENDS if b.name == backend)
    assert chosen.is_supported(*_shapes()) is None
    assert reason in chosen.is_supported(*_shapes(**changes))


@pytest.mark.parametrize(("backend", "where"), [("splash", "tpu"), ("cudnn", "gpu"), ("pallas_gpu", "gpu")])
def test_a_back_end_asked_for_on_another_platform_is_refused(backend, where):
    with pytest.raises(UserError, match=f"{backend}.*runs on {where} only, this is cpu"):
        select(backend, *_shapes())


@pytest.mark.parametrize(
    ("where", "changes", "chosen"),
    [
        ("tpu", {}, "splash"),
        ("tpu", {"pattern": "mixed"}, "xla"),
        ("gpu", {"pattern": "mixed"}, "cudnn"),
        ("gpu", {"dtype": jnp.float32}, "xla"),
        ("cpu", {"pattern": "mixed"}, "blocked"),
        ("cpu", {"tokens": 128}, "xla"),
    ],
)
def test_auto_takes_the_first_that_supports_the_case_and_says_why(monkeypatch, caplog, where, changes, chosen):
    monkeypatch.setattr(attention_module, "platform", lambda: where)
    attention_module._log_choice.cache_clear()
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert select("auto", *_shapes(**changes)).name == chosen
    (line,) = caplog.messages  # once
    refused = itertools.takewhile(lambda b: b.name != chosen, BACKENDS)
    assert all(f"not {b.name}: {b.refusal(*_shapes(**changes))}" in line for b in refused)


def test_a_back_end_refuses_what_it_cannot_do():
    q = jnp.zeros((1, 64, 2, 8))
    interval = masks.full(jnp.ones((1, 64), jnp.int32))
    with pytest.raises(UserError, match="fewer than 256 tokens"):
        attention(q, q, q, interval, backend="blocked")
    attention(q, q, q, interval)  # auto goes on to the next one
