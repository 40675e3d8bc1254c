"""What training changes from step to step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from valle_jax.model import Decoder, Params
from valle_jax.parallel.sharding import named_sharding, tree_shardings


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("step", "params", "opt_state", "ema_params"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree of sharded arrays.

    Attributes:
      step: int32 [], batches consumed, those whose update was refused included.
      params: float32 master weights.
      opt_state: of optax; its moments lie where their parameters lie.
      ema_params: moving average of `params`, or None.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None

    @property
    def best_params(self) -> Params:
        """What evaluation and export use: the moving average where there is one."""
        return self.params if self.ema_params is None else self.ema_params


def create(decoder: Decoder, optimizer: optax.GradientTransformation, key: jax.Array, *, ema: bool) -> TrainState:
    """A fresh state; traceable, so that `jit(create, out_shardings=...)` gives birth to it in shards."""
    params = decoder.init(key)
    # A copy, because a donated state must not hold one buffer twice.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), average)


def state_shardings(mesh: Mesh, decoder: Decoder, optimizer: optax.GradientTransformation, *, ema: bool) -> Any:
    """Where each array of a state lies, in the structure of the state."""
    replicated = named_sharding(mesh, ())
    params = tree_shardings(mesh, decoder.axes)
    opt_state: Any = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, decoder.abstract_params),
        params,
        transform_non_params=lambda _: replicated,
    )
    shape: Any = TrainState  # of shardings here, in place of arrays
    return shape(replicated, params, opt_state, params if ema else None)


def init_state(
    decoder: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int, *, ema: bool
) -> TrainState:
    """A fresh state on the mesh; no device ever holds more than its shards."""
    shardings = state_shardings(mesh, decoder, optimizer, ema=ema)
    make = functools.partial(create, decoder, optimizer, ema=ema)
    with jax.set_mesh(mesh):
        return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))


def abstract_state(decoder: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool) -> TrainState:
    """Shapes, dtypes and shardings of a state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(functools.partial(create, decoder, optimizer, ema=ema), jax.random.key(0))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, decoder, optimizer, ema=ema),
    )
