"""Model directories: what is written is what is read, and every damage has its message."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from packed import tiny_config

from valle_jax.codec.base import CodecInfo
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir, flatten, load_model_dir, save_model_dir, unflatten
from valle_jax.model import build
from valle_jax.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model() -> ModelDir:
    """Two random decoders."""
    parts = []
    for stage in ("ar", "nar"):
        config = tiny_config(stage)
        parts += [config, jax.device_get(build(config).init(jax.random.key(0)))]
    return ModelDir(*parts, Vocabulary.default(), CodecInfo("mel_rvq", 24000, 75.0, 4, 60, "0" * 16), max_tokens=512)


def test_round_trip(model, tmp_path):
    save_model_dir(tmp_path / "model", model, "# card\n")
    loaded = load_model_dir(tmp_path / "model")
    for field in dataclasses.fields(model):
        if not field.name.startswith("params"):
            assert getattr(loaded, field.name) == getattr(model, field.name)
    for name, value in flatten(model.params_ar).items():
        np.testing.assert_array_equal(flatten(loaded.params_ar)[name], value)
    assert (tmp_path / "model" / "model_card.md").read_text() == "# card\n"


def test_names_are_paths():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(nested) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert unflatten(flatten(nested)) == nested


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "codec.json", "ar.safetensors", "nar.safetensors"])
def test_a_missing_file_is_named(model, tmp_path, name):
    save_model_dir(tmp_path, model, "")
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        load_model_dir(tmp_path)


def test_parameters_of_another_configuration_are_refused(model, tmp_path):
    save_model_dir(tmp_path, model, "")
    shutil.copy(tmp_path / "nar.safetensors", tmp_path / "ar.safetensors")
    with pytest.raises(UserError, match="parameter"):
        load_model_dir(tmp_path)


def test_another_version_is_refused(model, tmp_path):
    save_model_dir(tmp_path, model, "")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"version": 99}))
    with pytest.raises(UserError, match="version 99"):
        load_model_dir(tmp_path)
