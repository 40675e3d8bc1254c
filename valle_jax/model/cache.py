"""The key-value cache of the AR decoder."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange

from valle_jax.parallel.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, [B, N, S, H] each."""

    k: jax.Array
    v: jax.Array

    def append_and_attend(self, q_B1NH, k_B1NH, v_B1NH, length_B: jax.Array) -> tuple[jax.Array, LayerCache]:
        """Writes a token behind the `length_B` of each row and attends to them and to it: [B, 1, N, H]."""
        row_B1, head_1N = jnp.arange(k_B1NH.shape[0])[:, None], jnp.arange(k_B1NH.shape[2])[None]

        def append(cached_BNSH, new_B1NH):
            # Each index of the scatter stands for one vector: XLA then writes where the token lies. A window over the
            # heads would be copied with the whole cache (seen on CPUs).
            place = cached_BNSH.at[row_B1, head_1N, length_B[:, None]]
            new = place.set(new_B1NH[:, 0].astype(cached_BNSH.dtype), unique_indices=True, indices_are_sorted=True)
            return constrain(new, ("batch", "heads", None, None))

        k, v = append(self.k, k_B1NH), append(self.v, v_B1NH)
        scores_BNS = jnp.einsum("btnh,bnsh->bns", q_B1NH, k, preferred_element_type=jnp.float32)
        seen_BS = jnp.arange(k.shape[2])[None] <= length_B[:, None]
        scores_BNS = jnp.where(seen_BS[:, None], scores_BNS * q_B1NH.shape[3] ** -0.5, -jnp.inf)
        weights_BNS = jax.nn.softmax(scores_BNS, axis=-1).astype(v.dtype)
        return jnp.einsum("bns,bnsh->bnh", weights_BNS, v)[:, None], LayerCache(k, v)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """The caches of all layers. Every row is filled from place 0; what lies behind its length is never seen.

    Attributes:
      layers: keys and values of each layer.
      length: int32 [B], tokens of each row.
    """

    layers: tuple[LayerCache, ...]
    length: jax.Array

    @classmethod
    def from_prefill(cls, kv: tuple[jax.Array, jax.Array], length_B: jax.Array, capacity: int) -> Cache:
        """From a prefill's keys and values [L, B, T, N, H], with room for `capacity` tokens per row.

        Whatever a row holds behind `length_B` is padding.
        """
        L, _, T, _, _ = kv[0].shape
        k, v = (jnp.pad(rearrange(x, "l b t n h -> l b n t h"), [(0, 0)] * 3 + [(0, capacity - T), (0, 0)]) for x in kv)
        return cls(tuple(LayerCache(k[i], v[i]) for i in range(L)), length_B)
