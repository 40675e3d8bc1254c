"""Model directories of random decoders, small enough for tests, and a prompt for them."""

import os
import pathlib

import jax
import numpy as np

from valle_jax.codec import get_codec
from valle_jax.codec.base import CodecInfo
from valle_jax.config import ModelConfig
from valle_jax.inference.model_dir import ModelDir, save_model_dir
from valle_jax.model import build
from valle_jax.text.vocabulary import Vocabulary

TINY = {"d_model": 32, "n_layers": 1, "n_heads": 2, "d_ff": 64, "dropout": 0.0}
TONE = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)  # one second at 24 kHz


def save_random_model(
    path: str | os.PathLike[str], codec: CodecInfo | None = None, *, max_tokens: int = 600, **changes
) -> None:
    """Writes one; the codec is the shipped one by default, `changes` are fields of the decoders' configurations."""
    codec, vocabulary = codec or get_codec("mel_rvq").info, Vocabulary.default()
    sizes = {"n_symbols": vocabulary.size, "codebooks": codec.codebooks, "codebook_size": codec.codebook_size}
    parts = []
    for stage in ("ar", "nar"):
        config = ModelConfig(stage, **{**TINY, **sizes, **changes})
        parts += [config, jax.device_get(build(config).init(jax.random.key(0)))]
    save_model_dir(pathlib.Path(path), ModelDir(*parts, vocabulary, codec, max_tokens), "")
