"""A model of random decoders."""

import pytest
from random_model import save_random_model

from valle_jax.inference.synthesizer import Synthesizer


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """Its directory."""
    path = tmp_path_factory.mktemp("model")
    save_random_model(path, max_tokens=320)
    return path


@pytest.fixture(scope="session")
def tts(model_dir):
    """The synthesizer of that directory."""
    return Synthesizer.load(model_dir)
