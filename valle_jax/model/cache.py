"""The key-value cache of the AR decoder."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, [X, S, H] each, where X counts rows and heads, B · N.

    XLA then writes a token where it lies. With four dimensions, or with a scatter to a place of each row's own, it
    copies the whole cache several times a step (seen on CPUs).
    """

    k: jax.Array
    v: jax.Array

    def append_and_attend(self, q_B1NH, k_B1NH, v_B1NH, end: jax.Array, seen_BS) -> tuple[jax.Array, LayerCache]:
        """Writes one token at `end` and attends to the tokens `seen_BS`: [B, 1, N, H]."""
        N, H = q_B1NH.shape[2:]
        k, v = (
            jax.lax.dynamic_update_slice_in_dim(
                cached, rearrange(new, "b 1 n h -> (b n) 1 h").astype(cached.dtype), end, axis=1
            )
            for cached, new in ((self.k, k_B1NH), (self.v, v_B1NH))
        )
        q_XH = rearrange(q_B1NH, "b 1 n h -> (b n) h")
        scores_XS = jnp.einsum("xh,xsh->xs", q_XH, k, preferred_element_type=jnp.float32) * H**-0.5
        scores_BNS = jnp.where(seen_BS[:, None], rearrange(scores_XS, "(b n) s -> b n s", n=N), -jnp.inf)
        weights_XS = rearrange(jax.nn.softmax(scores_BNS, axis=-1), "b n s -> (b n) s")
        o_XH = jnp.einsum("xs,xsh->xh", weights_XS.astype(v.dtype), v)
        return rearrange(o_XH, "(b n) h -> b 1 n h", n=N), LayerCache(k, v)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("layers", "prefix_length", "end"), meta_fields=("prefix_space",)
)
@dataclasses.dataclass(frozen=True)
class Cache:
    """The caches of all layers. Rows grow together, behind the space of the longest prefix.

    Attributes:
      layers: keys and values of each layer.
      prefix_length: int32 [B], tokens of each row's prefix; what is between them and `prefix_space` is never seen.
      end: int32 [], where the next token of every row goes.
      prefix_space: where the first one went.
    """

    layers: tuple[LayerCache, ...]
    prefix_length: jax.Array
    end: jax.Array
    prefix_space: int

    def seen_with_next(self) -> jax.Array:
        """Bool [B, S]: the tokens of each row, the next one included."""
        place = jnp.arange(self.layers[0].k.shape[1])[None]
        return (place < self.prefix_length[:, None]) | ((place >= self.prefix_space) & (place <= self.end))

    @classmethod
    def from_prefill(cls, kv: tuple[jax.Array, jax.Array], length_B: jax.Array, capacity: int) -> Cache:
        """From a prefill's keys and values [L, B, T, N, H], with room for `capacity` tokens per row.

        Whatever a row holds behind `length_B` is padding.
        """
        L, _, T, _, _ = kv[0].shape
        flat = (rearrange(x, "l b t n h -> l (b n) t h") for x in kv)
        k, v = (jnp.pad(x, [(0, 0), (0, 0), (0, capacity - T), (0, 0)]) for x in flat)
        return cls(tuple(LayerCache(k[i], v[i]) for i in range(L)), length_B, jnp.int32(T), T)
