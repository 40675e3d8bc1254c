"""Grouped code modelling (P2, section 3.2): the AR reads and predicts G consecutive codes in one step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.model.embedding import compute_dtype
from valle_jax.model.layers import param


class CodeGroups(nnx.Module):
    """G embeddings, concatenated and projected, become one; one hidden state becomes G, one for each code to predict.

    A group of one code is itself: both ways are then the identity, and there are no parameters.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        G, D = config.codes_per_step, config.d_model
        self.size = G
        self.dtype = compute_dtype(config)
        if G > 1:  # projections that keep the variance, and with it the initial loss
            self.w_in = param(rngs, (G, D, D), (None, "embed", None), std=(G * D) ** -0.5)
            self.w_out = param(rngs, (D, G, D), ("embed", None, None), std=D**-0.5)

    def of(self, codes_BX: jax.Array) -> jax.Array:
        """Codes [B, T G], as batches hold them, by steps: [B, T, G]."""
        return rearrange(codes_BX, "b (t g) -> b t g", g=self.size)

    def join(self, x_BTGD: jax.Array) -> jax.Array:
        """Embeddings of the codes of a step to that of the step, [B, T, D]."""
        if self.size == 1:
            return x_BTGD[:, :, 0]
        x_BTGD, w_GDE = x_BTGD.astype(self.dtype), self.w_in[...].astype(self.dtype)
        return jnp.einsum("btgd,gde->bte", x_BTGD, w_GDE, preferred_element_type=jnp.float32)

    def split(self, h_BTD: jax.Array) -> jax.Array:
        """Hidden states of steps to those behind which the codes of the next step are predicted, [B, T, G, D]."""
        if self.size == 1:
            return h_BTD[:, :, None]
        return jnp.einsum("btd,dge->btge", h_BTD, self.w_out[...].astype(h_BTD.dtype))
