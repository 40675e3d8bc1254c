"""A model directory of random decoders with the shipped codec."""

import jax
import pytest

from valle_jax.codec import get_codec
from valle_jax.config import ModelConfig
from valle_jax.inference.model_dir import ModelDir, save_model_dir
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.model import build
from valle_jax.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A model directory of random decoders."""
    codec, vocabulary = get_codec("mel_rvq").info, Vocabulary.default()
    parts = []
    for stage in ("ar", "nar"):
        config = ModelConfig(
            stage,
            d_model=32,
            n_layers=1,
            n_heads=2,
            d_ff=64,
            dropout=0.0,
            n_symbols=vocabulary.size,
            codebooks=codec.codebooks,
            codebook_size=codec.codebook_size,
        )
        parts += [config, jax.device_get(build(config).init(jax.random.key(0)))]
    path = tmp_path_factory.mktemp("model")
    save_model_dir(path, ModelDir(*parts, vocabulary, codec, max_tokens=600), "")
    return path


@pytest.fixture(scope="module")
def tts(model_dir):
    """The synthesizer of that directory."""
    return Synthesizer.load(model_dir)
