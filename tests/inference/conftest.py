"""A model directory of random decoders with the shipped codec."""

import pytest
from random_model import save_random_model

from valle_jax.inference.synthesizer import Synthesizer


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A model directory of random decoders."""
    path = tmp_path_factory.mktemp("model")
    save_random_model(path)
    return path


@pytest.fixture(scope="module")
def tts(model_dir):
    """The synthesizer of that directory."""
    return Synthesizer.load(model_dir)
