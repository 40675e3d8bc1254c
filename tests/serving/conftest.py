"""A folder with one voice."""

import numpy as np
import pytest

from valle_jax.inference.voice import voice_path

TONE = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)  # one second at 24 kHz


@pytest.fixture(scope="session")
def voices(tts, tmp_path_factory):
    """A folder with the voice `anna`: 75 frames that say three words."""
    folder = tmp_path_factory.mktemp("voices")
    tts.voice(TONE, "one two three").save(voice_path("anna", folder))
    return folder
