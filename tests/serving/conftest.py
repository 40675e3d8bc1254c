"""A folder with one voice."""

import pytest
from random_model import TONE

from valle_jax.inference.voice import voice_path


@pytest.fixture(scope="session")
def voices(tts, tmp_path_factory):
    """A folder with the voice `anna`: 75 frames that say three words."""
    folder = tmp_path_factory.mktemp("voices")
    tts.voice(TONE, "one two three").save(voice_path("anna", folder))
    return folder
