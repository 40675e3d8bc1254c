"""`model.code_init=codec`: code embeddings that start where the codec's own vectors lie."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from valle_jax.codec import get_codec
from valle_jax.codec.base import CodecInfo
from valle_jax.model.layers import EMBEDDING_STD
from valle_jax.train.state import TrainState


def codec_start(state: TrainState, info: CodecInfo, weights: str | None, seed: int) -> TrainState:
    """A fresh state of the NAR whose code embeddings are the codec's vectors, by one random rotation for all codebooks.

    Codes that sound alike then start alike: in the sum at the NAR's input, and in its tied heads. Each codebook is
    centred and scaled to the norm that random embeddings have, so that the initial loss stays what it is.

    Raises:
      UserError: the installed codec, or the one in `weights`, is not the one that `info` describes.
    """
    codec = get_codec(info.name, weights)
    codec.info.check_same(info, "the installed codec", "the dataset")
    table = state.params["embed"]["acoustic"]
    start = jax.device_put(project(codec.codebooks, table.shape[-1], seed), table.sharding)
    params = {**state.params, "embed": {**state.params["embed"], "acoustic": start}}
    average = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, ema_params=average)


def project(codebooks: np.ndarray, d_model: int, seed: int) -> np.ndarray:
    """Codebooks float32 [Q, V, K] as embeddings float32 [Q, V, d_model].

    The projection has orthonormal rows, and so keeps all angles, where d_model >= K; else orthonormal columns.
    """
    vectors = codebooks - codebooks.mean(axis=1, keepdims=True)
    vectors = vectors / np.sqrt(np.square(vectors).sum(-1).mean(1))[:, None, None]
    width = codebooks.shape[-1]
    rotation = jax.random.orthogonal(jax.random.key(seed), max(width, d_model))[:width, :d_model]
    return np.asarray(vectors @ np.asarray(rotation) * EMBEDDING_STD, np.float32)
