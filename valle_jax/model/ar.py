"""The autoregressive decoder: codebook 1 given the phonemes (P1, section 4.2.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_TEXT, per_code
from valle_jax.model import masks
from valle_jax.model.cache import Cache
from valle_jax.model.embedding import Embedder
from valle_jax.model.groups import CodeGroups
from valle_jax.model.head import project
from valle_jax.model.layers import EMBEDDING_STD, dropout, param
from valle_jax.model.transformer import Block, Transformer
from valle_jax.text.vocabulary import EOS_ID, PAD_ID


def hide_text(batch: dict[str, jax.Array], where_BT: jax.Array | bool = True) -> dict[str, jax.Array]:
    """The batch with padding in place of phonemes, where asked for; the end of text stays."""
    hidden = per_code((batch["kind"] == KIND_TEXT) & where_BT, batch["token"]) & (batch["token"] != EOS_ID)
    return batch | {"token": jnp.where(hidden, PAD_ID, batch["token"])}


class ARDecoder(nnx.Module):
    """Causal language model over phonemes, end of text, codes of codebook 1 and end of speech.

    Ids of the acoustic side: codes 0..V-1, end of speech V, and with `prepend_bos` begin of audio V + 1. A token is a
    group of G codes (`group_size`), which are predicted behind the token before it, each given the groups before only.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.n_outputs = config.codebook_size + 1
        entries = self.n_outputs + config.prepend_bos
        std = EMBEDDING_STD * config.d_model**-0.5
        self.embed = Embedder(config, (entries,), rngs=rngs)
        self.head = None if config.ar_tied else param(rngs, (self.n_outputs, config.d_model), ("vocab", "embed"), std)
        self.transformer = Transformer(config, adaptive=False, rngs=rngs)
        self.groups = CodeGroups(config, rngs=rngs)

    def _embed(self, batch):
        token_BTG = self.groups.of(batch["token"])
        is_text_BT1 = (batch["kind"] == KIND_TEXT)[..., None]
        text = self.embed.text(batch | {"token": token_BTG[..., 0]})
        embedding = jnp.where(is_text_BT1, text, self.groups.join(self.embed.lookup(token_BTG)))
        return self.embed(embedding, batch["kind"], batch["position"])

    def _head(self) -> jax.Array:
        """The output projection, float32 [V + 1, D]."""
        return self.embed.acoustic[: self.n_outputs] if self.head is None else self.head[...]

    def _hidden(self, batch, dropout_key=None, keep_cache=False, places_BM=None):
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        x_BTD = self._embed(batch)
        x_BTD = dropout(x_BTD, self.config.dropout, keys[0])
        interval = masks.causal(
            batch["segment"], batch["kind"], bidirectional_text=self.config.text_attention == "bidirectional"
        )
        angle = self.embed.angles(batch["kind"], batch["position"])
        return self.transformer(
            x_BTD, interval, angle_BTP=angle, dropout_key=keys[1], keep_cache=keep_cache, places_BM=places_BM
        )

    def hidden_and_head(
        self, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """What `project` makes logits of: hidden states [B, T G, D] of packed rows and the head, float32 [V + 1, D]."""
        h_BTGD = self.groups.split(self._hidden(batch, dropout_key)[0])
        return rearrange(h_BTGD, "b t g d -> b (t g) d"), self._head()

    def __call__(self, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None) -> jax.Array:
        """Logits float32 [B, T G, V + 1] of packed rows; `batch` as in `valle_jax.data.batch`."""
        return project(*self.hidden_and_head(batch, dropout_key))

    def prefill(self, batch: dict[str, jax.Array], capacity: int) -> tuple[jax.Array, Cache]:
        """Runs one segment per row, padded on the right.

        Returns:
          The logits [B, G, V + 1] behind each row's last token and a cache with room for `capacity` tokens.
        """
        length_B = (batch["segment"] > 0).sum(1).astype(jnp.int32)
        last_B1D, kv = self._hidden(batch, keep_cache=True, places_BM=length_B[:, None] - 1)
        return self._logits(last_B1D[:, 0]), Cache.from_prefill(kv, length_B, capacity)

    def unstack(self) -> list[Block]:
        """The layers for `decode`; call it once, outside the loop."""
        return self.transformer.unstack()

    def decode(self, token_BG, position_B, cache: Cache, layers: list[Block]) -> tuple[jax.Array, Cache]:
        """Logits float32 [B, G, V + 1] behind one more acoustic token per row, int32 [B, G], and the grown cache."""
        x_B1D = self.groups.join(self.embed.lookup(token_BG[:, None]))
        x_B1D = self.embed(x_B1D, None, position_B[:, None])
        h_BD, cache = self.transformer.decode(x_B1D[:, 0], self.embed.angles(None, position_B[:, None]), cache, layers)
        return self._logits(h_BD), cache

    def _logits(self, h_BD: jax.Array) -> jax.Array:
        """Of the codes behind one token per row, [B, G, V + 1]."""
        return project(self.groups.split(h_BD[:, None])[:, 0], self._head())
