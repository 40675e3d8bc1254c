"""The stack of blocks both decoders share: scanned over stacked layers to train, unrolled over a cache to decode."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.model.attention import attention
from valle_jax.model.cache import Cache, LayerCache
from valle_jax.model.layers import FeedForward, LayerNorm, constant, dropout, final_norm_scale, param, rotate
from valle_jax.model.masks import Interval
from valle_jax.model.splash_attention import RESIDUALS
from valle_jax.parallel.sharding import constrain

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(RESIDUALS),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def at(x_BTX: jax.Array, places_BM: jax.Array | None) -> jax.Array:
    """The tokens of each row at its places, [B, M, ...]; all of them where there are no places."""
    if places_BM is None:
        return x_BTX
    index = places_BM.reshape(*places_BM.shape, *(1,) * (x_BTX.ndim - 2))
    return jnp.take_along_axis(x_BTX, index, axis=1, mode="clip")


class Block(nnx.Module):
    """Self-attention and a feed-forward layer, each on a residual branch.

    As made, every parameter has a leading axis of n_layers; `Transformer` hands `__call__` one layer's slice.
    """

    def __init__(self, config: ModelConfig, *, adaptive: bool, rngs: nnx.Rngs):
        L, D, N = config.n_layers, config.d_model, config.n_heads
        H = D // N
        self.config = config
        self.w_qkv = param(rngs, (L, D, 3, N, H), ("layers", "embed", None, "heads", None), std=D**-0.5)
        if config.query_key_init == "shared":
            # Tokens then attend at first to those like them, in content and position (Trockman and Kolter, 2023,
            # "Mimetic initialization of self-attention layers").
            self.w_qkv[...] = self.w_qkv[...].at[:, :, 1].set(self.w_qkv[:, :, 0])
        self.b_qkv = constant(0.0, (L, 3, N, H), ("layers", None, "heads", None))
        self.w_o = param(rngs, (L, N, H, D), ("layers", "heads", None, "embed"), std=(2 * L * D) ** -0.5)
        self.b_o = constant(0.0, (L, D), ("layers", None))
        self.attention_norm = LayerNorm(D, adaptive=adaptive, stack=(L,))
        self.mlp_norm = LayerNorm(D, adaptive=adaptive, stack=(L,))
        self.mlp = FeedForward(D, config.d_ff, config.activation, n_layers=L, rngs=rngs)

    def qkv(self, x_BTD: jax.Array, places_BM: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries of the tokens at the given places (None: of all), keys and values of all: each [B, T, N, H]."""

        def part(x_BTD, which: slice) -> list[jax.Array]:
            c = jnp.einsum("btd,dcnh->btcnh", x_BTD, self.w_qkv[:, which].astype(x_BTD.dtype))
            c += self.b_qkv[None, None, which].astype(x_BTD.dtype)
            return [constrain(c[:, :, i], ("batch", "length", "heads", None)) for i in range(c.shape[2])]

        if places_BM is None:
            q, k, v = part(x_BTD, slice(3))
        else:
            (q,), (k, v) = part(at(x_BTD, places_BM), slice(1)), part(x_BTD, slice(1, 3))
        return q, k, v

    def output(self, o_BTNH: jax.Array) -> jax.Array:
        """The attention's output projection, [B, T, D]."""
        dtype = o_BTNH.dtype
        return jnp.einsum("btnh,nhd->btd", o_BTNH, self.w_o[...].astype(dtype)) + self.b_o[None, None].astype(dtype)

    def _residual(self, x, norm, branch, stage_BD, key, places_BM=None):
        """x + dropout(branch(norm(x))), or with post-norm norm(x + dropout(branch(x))); branch also returns an aux.

        With places, the branch sees all tokens and gives only those there.
        """
        pre = self.config.norm_position == "pre"
        y, aux = branch(norm(x, stage_BD) if pre else x)
        x = at(x, places_BM) + dropout(y, self.config.dropout, key)
        return (x if pre else norm(x, stage_BD)), aux

    def __call__(self, x_BTD, attend, stage_BD=None, dropout_key=None, places_BM=None) -> tuple[jax.Array, Any]:
        """Applies one layer; `attend(q, k, v) -> (output [B, T, N, H], aux)` decides what attention sees and keeps.

        With places int32 [B, M] it gives the tokens there only, [B, M, D].
        """
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)

        def attention_branch(y):
            o, aux = attend(*self.qkv(y, places_BM))
            return self.output(o), aux

        with jax.named_scope("attention"):
            x_BTD, aux = self._residual(x_BTD, self.attention_norm, attention_branch, stage_BD, keys[0], places_BM)
        with jax.named_scope("mlp"):
            x_BTD, _ = self._residual(x_BTD, self.mlp_norm, lambda y: (self.mlp(y), None), stage_BD, keys[1])
        return constrain(x_BTD, ("batch", "length", None)), aux


class Transformer(nnx.Module):
    """Blocks and, with pre-norm, a final norm."""

    def __init__(self, config: ModelConfig, *, adaptive: bool, rngs: nnx.Rngs):
        self.config = config
        self.blocks = Block(config, adaptive=adaptive, rngs=rngs)
        pre = config.norm_position == "pre"
        final_norm = (
            LayerNorm(config.d_model, adaptive=adaptive, scale=final_norm_scale(config.d_model)) if pre else None
        )
        self.final_norm = final_norm

    def __call__(
        self,
        x_BTD: jax.Array,
        interval: Interval,
        *,
        angle_BTP: jax.Array | None = None,
        stage_BD: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        keep_cache: bool = False,
        places_BM: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """All T tokens at once.

        Args:
          x_BTD: embeddings, in the dtype of the computation.
          interval: int32 [B, T] first key and one past the last that each token sees.
          angle_BTP: of rotary positions.
          stage_BD: the NAR's stage embedding, where it modulates the norms.
          dropout_key: None switches dropout off.
          keep_cache: whether to return the keys and values.
          places_BM: int32 [B, M], the tokens whose hidden states are wanted, of which alone the last layer computes
            more than keys and values; None: all. Not for training.

        Returns:
          Hidden states [B, T, D], or [B, M, D], and, if asked for, keys and values [L, B, T, N, H].
        """
        config = self.config
        graph, stacked = nnx.split(self.blocks)

        def layer(x, inputs, places_BM=None):
            params, key = inputs

            def attend(q, k, v):
                q = rotate(q, None if angle_BTP is None else at(angle_BTP, places_BM))
                k = rotate(k, angle_BTP)
                o = attention(q, k, v, interval.at(places_BM), backend=config.attention)
                return o, (k, v) if keep_cache else None

            return nnx.merge(graph, params)(x, attend, stage_BD, key, places_BM)

        if config.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=False)
        if places_BM is None:
            keys = None if dropout_key is None else jax.random.split(dropout_key, config.n_layers)
            x_BTD, kept = jax.lax.scan(layer, x_BTD, (stacked, keys))
            return self._finish(x_BTD, stage_BD), kept

        def numbered(i):  # by number: all layers but the last, cut off, would be a copy of them
            return jax.tree.map(lambda p: p[i], stacked), None

        last = config.n_layers - 1
        x_BTD, kept = jax.lax.scan(lambda x, i: layer(x, numbered(i)), x_BTD, jnp.arange(last))
        x_BMD, kept_last = layer(x_BTD, numbered(last), places_BM)
        kept = jax.tree.map(lambda those, this: jnp.concatenate([those, this[None]]), kept, kept_last)
        return self._finish(x_BMD, stage_BD), kept

    def _finish(self, x_BTD, stage_BD=None):
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD, stage_BD)

    def unstack(self) -> list[Block]:
        """The layers one by one. Call it outside a decode loop: inside, the slices would be copied at every step."""
        graph, stacked = nnx.split(self.blocks)
        return [nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], stacked)) for i in range(self.config.n_layers)]

    def decode(
        self, x_BD: jax.Array, angle_B1P: jax.Array | None, cache: Cache, layers: list[Block]
    ) -> tuple[jax.Array, Cache]:
        """One more token per row.

        Args:
          x_BD: its embedding.
          angle_B1P: of rotary positions; keys are cached turned.
          cache: keys and values of the tokens before it.
          layers: what `unstack` returned.

        Returns:
          The hidden state [B, D] and the cache with the token appended.
        """
        x_B1D = x_BD[:, None]

        def attend(layer_cache: LayerCache, q, k, v):
            return layer_cache.append_and_attend(rotate(q, angle_B1P), rotate(k, angle_B1P), v, cache.length)

        new: list[LayerCache] = []
        for layer, layer_cache in zip(layers, cache.layers, strict=True):
            x_B1D, updated = layer(x_B1D, functools.partial(attend, layer_cache))
            new.append(updated)
        return self._finish(x_B1D)[:, 0], Cache(tuple(new), cache.length + 1)
