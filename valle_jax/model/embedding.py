"""Phoneme and acoustic embeddings with their positions: what both decoders do to tokens before the first block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_TEXT
from valle_jax.model.layers import EMBEDDING_STD, constant, param, rotary_angles, sinusoids
from valle_jax.parallel.mesh import platform
from valle_jax.parallel.sharding import constrain


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The dtype of the computation: bfloat16 on accelerators unless the configuration says otherwise."""
    if config.dtype == "auto":
        return jnp.dtype(jnp.float32 if platform() == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.dtype)


def look_up(table: jax.Array, index: jax.Array) -> jax.Array:
    """Entries of a table along its first axis; indices beyond it read the last one.

    The table is gathered over the mesh first, as any weight is for its use: left to itself, the partitioner looks up
    slices of the width for all rows of the batch and then replicates the whole result.
    """
    return jnp.take(constrain(table, (None,) * table.ndim), index, axis=0, mode="clip")


class Embedder(nnx.Module):
    """A table for phonemes, one for acoustic tokens, and positions counted separately for each.

    So a phoneme and a frame may have the same position; the tables tell them apart, with rotary positions too.

    Tables have entries of standard deviation 0.64 / sqrt(D) and are multiplied by sqrt(D) here, at the input; a tied
    head uses them as they are, so that the initial loss is about ln V + 0.2.
    """

    def __init__(self, config: ModelConfig, acoustic_shape: tuple[int, ...], *, rngs: nnx.Rngs):
        D = config.d_model
        std = EMBEDDING_STD * D**-0.5
        lead = (None,) * (len(acoustic_shape) - 1)
        self.config = config
        self.phonemes = param(rngs, (config.n_symbols, D), ("vocab", "embed"), std)
        self.acoustic = param(rngs, (*acoustic_shape, D), (*lead, "vocab", "embed"), std)
        if config.n_languages:
            self.language = param(rngs, (config.n_languages, D), (None, "embed"), std)
        if config.position_scale == "learned":
            self.text_scale = constant(config.position_amplitude, (), ())
            self.acoustic_scale = constant(config.position_amplitude, (), ())

    def text(self, batch: dict[str, jax.Array]) -> jax.Array:
        """Phoneme embeddings [B, T, D]; what is no phoneme, and masked by the caller, reads something."""
        embedding = look_up(self.phonemes[...], batch["token"])
        return embedding + look_up(self.language[...], batch["language"]) if self.config.n_languages else embedding

    def lookup(self, token: jax.Array) -> jax.Array:
        """Acoustic embeddings [..., D] from a table of one codebook."""
        return look_up(self.acoustic[...], token)

    def __call__(self, embedding_BTD, kind_BT: jax.Array | None, position_BT: jax.Array) -> jax.Array:
        """Scales looked-up embeddings and adds sinusoids; `kind_BT` None means that all tokens are acoustic."""
        D = self.config.d_model
        if self.config.positions == "rotary":
            return (embedding_BTD * D**0.5).astype(compute_dtype(self.config))
        position = sinusoids(self._steps(kind_BT, position_BT), D)
        if self.config.position_scale == "learned":
            scale = self.acoustic_scale[...]
            if kind_BT is not None:
                scale = jnp.where(kind_BT == KIND_TEXT, self.text_scale[...], scale)[..., None]
            position = position * scale
        else:
            position = position * self.config.position_amplitude
        return (embedding_BTD * D**0.5 + position).astype(compute_dtype(self.config))

    def angles(self, kind_BT: jax.Array | None, position_BT: jax.Array) -> jax.Array | None:
        """By what attention turns queries and keys, [B, T, H / 2]; None with sinusoidal positions."""
        if self.config.positions == "sinusoidal":
            return None
        return rotary_angles(self._steps(kind_BT, position_BT), self.config.d_model // self.config.n_heads)

    def _steps(self, kind_BT: jax.Array | None, position_BT: jax.Array) -> jax.Array:
        """Positions in units of frames."""
        if kind_BT is None:
            return position_BT
        return jnp.where(kind_BT == KIND_TEXT, position_BT * self.config.text_position_step, position_BT)
