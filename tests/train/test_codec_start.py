"""`model.code_init=codec`: embeddings with the codec's geometry, and nothing else changed."""

import dataclasses

import jax
import numpy as np
import pytest
from train_helpers import random_rows, tiny_config

from valle_jax.codec import get_codec
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import flatten
from valle_jax.model import build
from valle_jax.model.layers import EMBEDDING_STD
from valle_jax.parallel.mesh import make_mesh
from valle_jax.train.codec_start import codec_start, project
from valle_jax.train.loop import train
from valle_jax.train.losses import loss_sums
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state

CODEC = get_codec("mel_rvq")


def config_of(**settings):
    sizes = {"n_symbols": 12, "codebooks": CODEC.info.codebooks, "codebook_size": CODEC.info.codebook_size}
    return tiny_config("nar", **{f"model__{name}": value for name, value in {**sizes, **settings}.items()})


def fresh_state(config):
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    return decoder, init_state(decoder, optimizer, make_mesh({"fsdp": 2, "tensor": 2}), 0, ema=True)


def test_only_the_code_embeddings_change():
    _, fresh = fresh_state(config_of())
    before = jax.device_get(flatten(fresh.params))
    sharding = fresh.params["embed"]["acoustic"].sharding
    state = codec_start(fresh, CODEC.info, None, seed=0)
    for name, leaf in flatten(state.params).items():
        if name != "embed.acoustic":
            np.testing.assert_array_equal(leaf, before[name], err_msg=name)
    table = state.params["embed"]["acoustic"]
    assert table.sharding == sharding
    np.testing.assert_array_equal(table, project(CODEC.codebooks, table.shape[-1], seed=0))
    np.testing.assert_array_equal(state.ema_params["embed"]["acoustic"], table)


def test_angles_are_the_codecs():
    vectors = CODEC.codebooks - CODEC.codebooks.mean(axis=1, keepdims=True)
    table = project(CODEC.codebooks, 96, seed=3)
    for level in (0, 7):
        norm = np.sqrt(np.square(table[level]).sum(-1).mean())
        assert norm == pytest.approx(EMBEDDING_STD, rel=1e-5)
        scale = np.square(vectors[level]).sum(-1).mean() / EMBEDDING_STD**2
        # float32 rounding of inner products of 80 terms, relative to the largest
        np.testing.assert_allclose(table[level] @ table[level].T * scale, vectors[level] @ vectors[level].T, atol=1e-2)


def test_fewer_channels_than_the_codec_keep_the_norm_on_average():
    table = project(CODEC.codebooks, 16, seed=0)
    # a random subspace: only the expectation is kept, times 16 / 80
    shares = np.square(table).sum(-1).mean(1) / EMBEDDING_STD**2
    assert table.shape == (8, 1024, 16) and (shares > 0.05).all() and (shares < 0.6).all()


def test_initial_loss_is_that_of_a_uniform_guess():
    config = config_of(d_model=128)
    decoder, fresh = fresh_state(config)
    state = codec_start(fresh, CODEC.info, None, seed=0)
    batch = random_rows(config, 4)
    sums = loss_sums(decoder.logits(jax.device_get(state.params), batch), batch, config.model)
    assert sums.loss / sums.targets < np.log(1024) + 0.3


def test_another_codec_is_refused():
    _, fresh = fresh_state(config_of())
    other = dataclasses.replace(CODEC.info, weight_hash="1" * 16)
    with pytest.raises(UserError, match="prepare both with one codec"):
        codec_start(fresh, other, None, seed=0)


def test_train_starts_from_the_codec_of_the_dataset(dataset, tmp_path):
    """The shared dataset claims a `mel_rvq` of other weights than the installed one."""
    config = tiny_config("nar", model__code_init="codec")
    with pytest.raises(UserError, match="prepare both with one codec"):
        train(config, [(dataset, 1.0)], tmp_path, mesh={"data": 1})
    assert not (tmp_path / "metrics.jsonl").exists()
