"""The key-value cache of the AR decoder."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer, [B, N, S, H] each: heads lead, so that a step reads contiguous memory."""

    k: jax.Array
    v: jax.Array

    def append_and_attend(self, q_B1NH, k_B1NH, v_B1NH, length_B) -> tuple[jax.Array, LayerCache]:
        """Writes one token behind each row's `length_B` tokens and attends to all of them: [B, 1, N, H]."""
        row = jnp.arange(length_B.shape[0])
        k = self.k.at[row, :, length_B].set(k_B1NH[:, 0].astype(self.k.dtype))
        v = self.v.at[row, :, length_B].set(v_B1NH[:, 0].astype(self.v.dtype))
        scores_BNS = jnp.einsum("bnh,bnsh->bns", q_B1NH[:, 0], k, preferred_element_type=jnp.float32)
        seen = jnp.arange(k.shape[2])[None, None, :] <= length_B[:, None, None]
        scores_BNS = jnp.where(seen, scores_BNS * q_B1NH.shape[-1] ** -0.5, -jnp.inf)
        weights_BNS = jax.nn.softmax(scores_BNS, axis=-1).astype(v.dtype)
        return jnp.einsum("bns,bnsh->bnh", weights_BNS, v)[:, None], LayerCache(k, v)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """The caches of all layers, and how many tokens each row holds, int32 [B]."""

    layers: tuple[LayerCache, ...]
    length: jax.Array

    @classmethod
    def from_prefill(cls, kv: tuple[jax.Array, jax.Array], length_B: jax.Array, capacity: int) -> Cache:
        """From a prefill's keys and values [L, B, T, N, H], with room for `capacity` tokens per row.

        Whatever a row holds behind `length_B` is padding: it is masked, and overwritten as the row grows.
        """
        k, v = (jnp.pad(x.swapaxes(2, 3), [(0, 0)] * 3 + [(0, capacity - x.shape[2]), (0, 0)]) for x in kv)
        return cls(tuple(LayerCache(k[i], v[i]) for i in range(k.shape[0])), length_B)
