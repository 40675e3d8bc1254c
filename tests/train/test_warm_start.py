"""`--init-from`: what comes from the model directory, what stays fresh, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from train_helpers import CODEC, VOCABULARY, sized, tiny_config

from valle_jax.codec.base import CodecInfo
from valle_jax.data.info import DatasetInfo
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir, flatten, save_model_dir
from valle_jax.model import build
from valle_jax.parallel.mesh import make_mesh
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state
from valle_jax.train.warm_start import warm_start

INFO = DatasetInfo(CODEC, VOCABULARY, {"utterances": 1})


def config_of(stage, vocabulary=VOCABULARY, **settings):
    settings = {"model__n_layers": 1, "optimizer__ema_decay": 0.5, **settings}
    return sized(tiny_config(stage, **settings), vocabulary.size)


def fresh_state(config, seed=0):
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    return init_state(decoder, optimizer, make_mesh({"fsdp": 2, "tensor": 2}), seed, ema=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory of random decoders, and its contents."""
    folder = tmp_path_factory.mktemp("model")
    parts = []
    for stage in ("ar", "nar"):
        config = config_of(stage)
        parts += [config.model, jax.device_get(fresh_state(config, seed=5).params)]
    contents = ModelDir(*parts, VOCABULARY, CODEC, max_tokens=48)
    save_model_dir(folder, contents, "card")
    return folder, contents


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_parameters_are_the_models(model, stage):
    folder, contents = model
    fresh = fresh_state(config_of(stage))
    before = jax.device_get(fresh)
    state = warm_start(fresh, folder, config_of(stage).model, INFO)
    given = flatten(contents.params_ar if stage == "ar" else contents.params_nar)
    for name, leaf in flatten(state.params).items():
        np.testing.assert_array_equal(leaf, given[name], err_msg=name)
        assert leaf.sharding == flatten(fresh.params)[name].sharding
        np.testing.assert_array_equal(flatten(state.ema_params)[name], given[name], err_msg=name)
        assert leaf is not flatten(state.ema_params)[name]  # a donated state must not hold one buffer twice
    assert any((flatten(before.params)[name] != given[name]).any() for name in given)
    assert state.step == 0
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.opt_state), before.opt_state)


def test_new_symbols_keep_their_fresh_embeddings(model):
    folder, contents = model
    enlarged = Vocabulary("larger", (*VOCABULARY.symbols, "x", "y", "z"))
    config = config_of("ar", enlarged)
    fresh = fresh_state(config)
    before = flatten(jax.device_get(fresh.params))["embed.phonemes"]
    state = warm_start(fresh, folder, config.model, dataclasses.replace(INFO, vocabulary=enlarged))
    after = flatten(state.params)["embed.phonemes"]
    assert after.shape[0] == VOCABULARY.size + 3 and after.sharding == flatten(fresh.params)["embed.phonemes"].sharding
    np.testing.assert_array_equal(after[: VOCABULARY.size], flatten(contents.params_ar)["embed.phonemes"])
    np.testing.assert_array_equal(after[VOCABULARY.size :], before[VOCABULARY.size :])


@pytest.mark.parametrize(
    "settings, info, message",
    [
        ({"model__d_model": 32}, {}, r"parameter \S+ has shape \(.*16.*\), this configuration asks for \(.*32"),
        ({"model__n_layers": 2}, {}, r"parameter transformer\.blocks\.\S+ has shape \(1, .*asks for \(2, "),
        ({"model__ar_tied": False}, {}, r"only this configuration has parameter \S+; use the model's switches"),
        (
            {},
            {"codec": CodecInfo("mel_rvq", 24_000, 75.0, 3, 16, "1" * 16)},
            "was made with codec mel_rvq .* but the dataset with mel_rvq",
        ),
        (
            {},
            {"vocabulary": Vocabulary("other", tuple("gfedcba "))},
            r"the dataset was made with vocabulary other .* with test \(8 symbols\)",
        ),
        (
            {},
            {"vocabulary": Vocabulary("smaller", tuple("abcdefg"))},
            r"the dataset was made with vocabulary smaller \(7 symbols\)",
        ),
    ],
)
def test_models_that_do_not_fit(model, settings, info, message):
    config = config_of("ar", **settings)
    with pytest.raises(UserError, match=message):
        warm_start(fresh_state(config), model[0], config.model, dataclasses.replace(INFO, **info))


def test_no_model_directory(tmp_path):
    config = config_of("ar")
    with pytest.raises(UserError, match=r"is not a model directory: config\.json is missing"):
        warm_start(fresh_state(config), tmp_path, config.model, INFO)
