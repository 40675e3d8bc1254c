"""VALL-E and VALL-E 2 in JAX/Flax.

import valle_jax
tts = valle_jax.load("model")
tts.synthesize("seven two one", prompt="voice.wav", prompt_text="three five").save("speech.wav")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from valle_jax.version import __version__

if TYPE_CHECKING:
    from valle_jax.inference.synthesizer import Synthesizer


def load(
    model_dir: str | os.PathLike[str], *, language: str = "en-us", codec_weights: str | None = None
) -> Synthesizer:
    """Loads a model directory for synthesis.

    Args:
      model_dir: what `valle export` wrote.
      language: of the texts to say, as espeak-ng names it.
      codec_weights: file with the codec's weights, where they are not to be fetched.

    Raises:
      UserError: the directory is incomplete or its codec is not the installed one.
    """
    from valle_jax.inference.synthesizer import Synthesizer

    return Synthesizer.load(model_dir, language=language, codec_weights=codec_weights)


__all__ = ["__version__", "load"]
