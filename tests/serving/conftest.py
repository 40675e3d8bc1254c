"""Random decoders, a folder with one voice, and what a server of them is to say."""

import numpy as np
import pytest
from random_model import save_random_model

from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import voice_path

TONE = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)  # one second at 24 kHz


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A model directory of random decoders."""
    path = tmp_path_factory.mktemp("model")
    save_random_model(path, max_tokens=320)
    return path


@pytest.fixture(scope="session")
def tts(model_dir):
    """The synthesizer of that directory."""
    return Synthesizer.load(model_dir)


@pytest.fixture(scope="session")
def voices(tts, tmp_path_factory):
    """A folder with the voice `anna`: 75 frames that say three words."""
    folder = tmp_path_factory.mktemp("voices")
    tts.voice(TONE, "one two three").save(voice_path("anna", folder))
    return folder
