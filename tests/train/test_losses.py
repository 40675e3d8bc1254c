"""The loss against NumPy, in chunks and over a padded vocabulary, and the noise on input codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_helpers import random_rows, sized, tiny_config

from valle_jax.data.batch import KIND_ACOUSTIC, KIND_TEXT
from valle_jax.model import build
from valle_jax.model.head import project
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh
from valle_jax.text.vocabulary import EOS_ID, PAD_ID
from valle_jax.train.losses import add_code_noise, decoder_loss_sums, drop_text, loss_sums


def test_sums_against_numpy():
    config = sized(tiny_config("nar"))
    batch = random_rows(config, rows=5)
    logits = np.random.default_rng(1).normal(0, 2, (*batch["target"].shape, config.model.codebook_size))
    sums = loss_sums(jnp.asarray(logits, jnp.float32), batch, config.model)

    loss = targets = correct = 0.0
    stage_loss, stage_correct = np.zeros((2, config.model.codebooks - 1))
    for row, column in zip(*np.nonzero(batch["target"] >= 0), strict=True):
        x, target = logits[row, column], batch["target"][row, column]
        nats = np.log(np.exp(x).sum()) - x[target]
        hit, stage = target in np.argsort(x)[-10:], batch["stage"][row] - 1
        loss, targets, correct = loss + nats, targets + 1, correct + hit
        stage_loss[stage] += nats
        stage_correct[stage] += hit
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-5)  # float32 against float64
    assert (sums.targets, sums.correct_top10) == (targets, correct)
    np.testing.assert_allclose(sums.stage_loss, stage_loss, rtol=1e-5)
    assert sums.stage_targets.sum() == targets
    np.testing.assert_array_equal(sums.stage_correct_top10, stage_correct)


@functools.cache
def _decoder(stage):
    config = sized(tiny_config(stage)).override({"model.codebook_size": 60})
    decoder = build(config.model)
    return decoder, jax.jit(decoder.init)(jax.random.key(0)), random_rows(config, rows=4)


@functools.cache
def _value_and_grad(decoder, **how):
    def loss(params, batch):
        sums = decoder_loss_sums(decoder, params, batch, **how)
        return sums.loss / sums.targets, sums

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _assert_same(found, expected):
    """Float32 sums of up to 200 terms of about 3, and gradients of at most 1, in another order."""
    ((_, sums), grads), ((_, expected_sums), expected_grads) = jax.device_get((found, expected))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), sums, expected_sums)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), grads, expected_grads)


@pytest.mark.parametrize("stage", ["ar", "nar"])
@pytest.mark.parametrize("how", [{"chunk": 20}, {"tile": 128}, {"chunk": 16, "tile": 128}])
def test_chunks_and_a_padded_vocabulary_change_nothing(stage, how):
    """Rows of 48 tokens: 16 divides them, 20 does not."""
    decoder, params, batch = _decoder(stage)
    expected = _value_and_grad(decoder)(params, batch)
    plain = loss_sums(decoder.logits(params, batch), batch, decoder.config)
    np.testing.assert_allclose(expected[0][1].loss, plain.loss, rtol=1e-6)
    _assert_same(_value_and_grad(decoder, **how)(params, batch), expected)


def test_chunks_are_the_same_over_a_mesh():
    for stage in ("ar", "nar"):
        decoder, params, batch = _decoder(stage)
        expected = _value_and_grad(decoder)(params, batch)
        mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
        with jax.set_mesh(mesh):
            found = _value_and_grad(decoder, chunk=16)(params, HostRows.of(mesh, 4).place(batch))
        _assert_same(found, expected)


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_chunks_keep_all_logits_from_existing_at_once(stage):
    decoder, params, batch = _decoder(stage)
    outputs = decoder.config.codebook_size + (stage == "ar")
    compiled = {
        chunk: _value_and_grad(decoder, chunk=chunk).lower(params, batch).compile().as_text() for chunk in (0, 16)
    }
    assert f"f32[4,48,{outputs}]" in compiled[0]
    assert f"f32[4,48,{outputs}]" not in compiled[16]
    assert f"f32[4,16,{outputs}]" in compiled[16]


def test_padding_columns_never_win():
    h, head = jax.random.normal(jax.random.key(0), (2, 3, 8)), jnp.ones((5, 8))
    padded = project(h, head, tile=4)
    assert padded.shape == (2, 3, 8)
    np.testing.assert_array_equal(padded[..., :5], project(h, head))
    assert (padded[..., 5:] == -1e30).all()
    np.testing.assert_array_equal(jax.nn.softmax(padded)[..., 5:], 0)


def test_text_dropout_hides_whole_texts_only():
    config = sized(tiny_config())
    batch = random_rows(config, rows=300)
    token = np.asarray(drop_text(batch, 0.3, jax.random.key(0))["token"])
    is_phoneme = (batch["kind"] == KIND_TEXT) & (batch["token"] != EOS_ID)
    np.testing.assert_array_equal(token[~is_phoneme], batch["token"][~is_phoneme])
    hidden = []
    for row in range(300):
        for segment in range(1, batch["segment"][row].max() + 1):
            mine = is_phoneme[row] & (batch["segment"][row] == segment)
            changed = token[row, mine] != batch["token"][row, mine]
            was_padding = batch["token"][row, mine] == PAD_ID
            hidden.append((token[row, mine] == PAD_ID).all())
            assert hidden[-1] or not changed.any()
            assert not hidden[-1] or (changed | was_padding).all()
    # Segments are drawn one by one: a binomial share, within four standard deviations.
    assert abs(np.mean(hidden) - 0.3) < 4 * (0.3 * 0.7 / len(hidden)) ** 0.5


@pytest.mark.parametrize("group", [1, 2])
def test_code_noise_reaches_input_codes_only(group):
    config = sized(tiny_config(model__group_size=group))
    batch = random_rows(config, rows=200)
    eos, bos = config.model.codebook_size, config.model.codebook_size + 1
    is_acoustic = (batch["kind"] == KIND_ACOUSTIC).repeat(group, axis=1)
    first = np.argmax(is_acoustic, axis=1)
    batch["token"][np.arange(200), first] = bos
    batch["token"][np.arange(200), first + 1] = eos
    noisy = add_code_noise(batch, 0.3, config.model.codebook_size, jax.random.key(0))
    codes = is_acoustic & (batch["token"] < config.model.codebook_size)
    token = np.asarray(noisy["token"])
    np.testing.assert_array_equal(token[~codes], batch["token"][~codes])
    assert token[codes].min() == 0 and token[codes].max() == config.model.codebook_size - 1
    # A random code is the old one in one of 16 cases; 4,000 draws have a standard deviation of 0.007.
    share = (token != batch["token"])[codes].mean()
    assert abs(share - 0.3 * 15 / 16) < 0.03
    np.testing.assert_array_equal(noisy["target"], batch["target"])
