"""The non-autoregressive decoder: codebooks 2..Q, one stage each (P1, section 4.2.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PADDING, KIND_PROMPT, KIND_STAGE, KIND_TEXT
from valle_jax.model import masks
from valle_jax.model.embedding import Embedder, look_up
from valle_jax.model.head import project
from valle_jax.model.layers import EMBEDDING_STD, dropout, param
from valle_jax.model.transformer import Transformer

_HIDDEN = {"prompt": (), "text": (KIND_PROMPT,), "none": (KIND_PROMPT, KIND_TEXT)}  # by `model.nar_context`


def _hide(kind_BT: jax.Array, hidden: tuple[int, ...]) -> jax.Array:
    """Kinds with padding in place of the hidden ones: their tokens keep their places but show nothing."""
    for kind in hidden:
        kind_BT = jnp.where(kind_BT == kind, KIND_PADDING, kind_BT)
    return kind_BT


def hide_prompt(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The batch with prompt frames that keep their places but show no codebook."""
    return batch | {"kind": _hide(batch["kind"], (KIND_PROMPT,))}


class NARDecoder(nnx.Module):
    """Predicts codebook j (0-based, 1..Q-1: the stage) of every target frame from the codebooks below it.

    Prompt frames show all Q codebooks; all tokens of a segment see each other. The stage conditions every norm (P1),
    or is the embedding of a token behind the frames of each segment (P2, section 3.4).
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        Q, V, D = config.codebooks, config.codebook_size, config.d_model
        std = EMBEDDING_STD * D**-0.5
        self.config = config
        self.embed = Embedder(config, (Q, V), rngs=rngs)
        self.stage_is_token = config.nar_stage == "token"
        self.stage = param(rngs, (Q - 1, D), (None, "embed"), std if self.stage_is_token else 1.0)
        # Heads of their own: of every stage, or with "next" of the last one, which has no next embedding.
        own = {"same": 0, "next": 1, "none": Q - 1}[config.nar_tying]
        self.head = param(rngs, (own, V, D), (None, "vocab", "embed"), std) if own else None
        self.transformer = Transformer(config, adaptive=not self.stage_is_token, rngs=rngs)

    def _heads(self) -> jax.Array:
        """Output projections of the stages, [Q - 1, V, D]."""
        if self.config.nar_tying == "same":
            return self.embed.acoustic[1:]
        assert self.head is not None
        if self.config.nar_tying == "next":
            return jnp.concatenate([self.embed.acoustic[2:], self.head[...]])
        return self.head[...]

    def _embed_codes(self, codes_BTQ, kind_BT, stage_B) -> jax.Array:
        """The sum over the codebooks that a frame shows: all of a prompt frame, those below the stage of a target."""
        shown = jnp.where(
            kind_BT == KIND_ACOUSTIC, stage_B[:, None], jnp.where(kind_BT == KIND_PROMPT, self.config.codebooks, 0)
        )
        total = jnp.zeros((*kind_BT.shape, self.config.d_model))
        for q in range(self.config.codebooks):
            embedding = look_up(self.embed.acoustic[q], codes_BTQ[..., q])
            total += jnp.where((shown > q)[..., None], embedding, 0)
        return total

    def hidden_and_head(
        self,
        batch: dict[str, jax.Array],
        dropout_key: jax.Array | None = None,
        places_BM: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """What `project` makes logits of: hidden states [B, T, D] and each row's head, float32 [B, V, D].

        With places int32 [B, M] those of the tokens there only, [B, M, D].
        """
        kind, stage_B = _hide(batch["kind"], _HIDDEN[self.config.nar_context]), batch["stage"]
        stage_BD = look_up(self.stage[...], stage_B - 1)
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        codes = self._embed_codes(batch["codes"], kind, stage_B)
        x_BTD = jnp.where((kind == KIND_TEXT)[..., None], self.embed.text(batch), codes)
        if self.stage_is_token:
            x_BTD = jnp.where((kind == KIND_STAGE)[..., None], stage_BD[:, None], x_BTD)
        x_BTD = dropout(self.embed(x_BTD, kind, batch["position"]), self.config.dropout, keys[0])
        h_BTD, _ = self.transformer(
            x_BTD,
            masks.full(batch["segment"]),
            angle_BTP=self.embed.angles(kind, batch["position"]),
            stage_BD=stage_BD,
            dropout_key=keys[1],
            places_BM=places_BM,
        )
        return h_BTD, look_up(self._heads(), stage_B - 1)

    def __call__(
        self,
        batch: dict[str, jax.Array],
        dropout_key: jax.Array | None = None,
        places_BM: jax.Array | None = None,
    ) -> jax.Array:
        """Logits float32 [B, T, V] of each row's stage, or [B, M, V]; `batch` as in `valle_jax.data.batch`."""
        return project(*self.hidden_and_head(batch, dropout_key, places_BM))
