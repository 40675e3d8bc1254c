"""Decoders as pure functions of nested dicts of parameters; NNX modules define them, `build` takes them apart once."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from valle_jax.config import ModelConfig
from valle_jax.errors import UserError
from valle_jax.model.ar import ARDecoder
from valle_jax.model.nar import NARDecoder

Params = dict[str, Any]  # nested dicts of float32 arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """A decoder without its parameters.

    Attributes:
      config: with all sizes resolved.
      abstract_params: shapes and dtypes, in the structure that `init` returns.
      axes: logical axis names of every parameter, one per dimension, in the same structure.
    """

    config: ModelConfig
    abstract_params: Params
    axes: Params
    _graph: nnx.GraphDef
    _state: nnx.State

    @property
    def n_parameters(self) -> int:
        """How many numbers the parameters hold."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_params))

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; run it inside `jax.jit(..., out_shardings=...)` so that they are born sharded."""
        return nnx.to_pure_dict(nnx.state(_module(self.config, key), nnx.Param))

    def bind(self, params: Params) -> ARDecoder | NARDecoder:
        """The module with these parameters, for use inside one jitted function."""
        state = jax.tree.map(lambda x: x, self._state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self._graph, state)

    def logits(self, params: Params, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None) -> jax.Array:
        """Logits float32 [B, T, outputs] of packed rows; dropout where a key is given."""
        return self.bind(params)(batch, dropout_key)

    def hidden_and_head(
        self, params: Params, batch: dict[str, jax.Array], dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """What `valle_jax.model.head.project` makes `logits` of, for losses that never hold all logits at once."""
        return self.bind(params).hidden_and_head(batch, dropout_key)


def _module(config: ModelConfig, key: jax.Array) -> ARDecoder | NARDecoder:
    return (ARDecoder if config.stage == "ar" else NARDecoder)(config, rngs=nnx.Rngs(key))


def build(config: ModelConfig) -> Decoder:
    """The decoder of a configuration whose n_symbols, codebooks and codebook_size are set."""
    if not (config.n_symbols and config.codebooks and config.codebook_size):
        raise UserError("model.n_symbols, model.codebooks and model.codebook_size must be set or come from a dataset")
    if config.stage == "nar" and config.codebooks < 2:
        raise UserError("a codec with one codebook needs no NAR decoder: train the AR stage only")
    graph, state = nnx.split(nnx.eval_shape(lambda: _module(config, jax.random.key(0))))
    axes = jax.tree.map(lambda v: v.axes, state, is_leaf=lambda v: isinstance(v, nnx.Variable))
    return Decoder(config, nnx.to_pure_dict(state), nnx.to_pure_dict(axes), graph, state)


__all__ = ["Decoder", "Params", "build"]
