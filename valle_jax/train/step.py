"""One optimizer step, and one evaluation step, each a single jitted function over the mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax.sharding import Mesh

from valle_jax.config import Config, ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, per_code
from valle_jax.model import Decoder, Params
from valle_jax.parallel.sharding import constrain, named_sharding
from valle_jax.train.losses import Sums, add_code_noise, decoder_loss_sums, drop_text, loss_sums
from valle_jax.train.optimizer import learning_rate_schedule
from valle_jax.train.state import TrainState, state_shardings

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def batch_sizes(batch: Batch, config: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Acoustic frames of a batch without padding, and tokens of any kind (both int32 [])."""
    kind = batch["kind"]
    frames = (kind == KIND_ACOUSTIC) | (kind == KIND_PROMPT)
    if config.stage == "ar":
        is_code = batch["token"] < config.codebook_size  # not the end of speech, not the begin of audio
        frames = per_code(frames, batch["token"]) & is_code
    return frames.sum(), (batch["segment"] > 0).sum()


def _microbatches(batch: Batch, count: int) -> Batch:
    """[B, ...] as [count, B / count, ...]. Microbatch i has rows i, i + count, …, so that rows stay on their device."""

    def split(x):
        x = rearrange(x, "(rows count) ... -> count rows ...", count=count)
        return constrain(x, (None, "batch", *(None,) * (x.ndim - 2)))

    return jax.tree.map(split, batch)


def train_step(
    config: Config,
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
) -> tuple[TrainState, Metrics]:
    """One step; pure, to be jitted by `jit_train_step`.

    The loss is the sum over all targets of the global batch divided by their number, whatever the mesh and the
    accumulation. Where it or the gradient is not finite, parameters, moments and average stay as they are.

    Args:
      config: with the model's sizes resolved.
      decoder: of `config.model`.
      optimizer: from `make_optimizer`.
      state: donated.
      batch: global rows.
      key: of the run; the step's own randomness is `fold_in(key, state.step)`.

    Returns:
      The new state and scalars `loss`, `accuracy_top10`, `grad_norm`, `learning_rate`, `applied` (0 or 1), `frames`,
      `fill`.
    """
    model, accumulate = config.model, config.train.accumulate
    targets = jnp.maximum((batch["target"] >= 0).sum(), 1).astype(jnp.float32)
    step_key = jax.random.fold_in(key, state.step)

    def loss(params: Params, rows: Batch, key: jax.Array) -> tuple[jax.Array, Sums]:
        dropout_key, noise_key = jax.random.split(key)
        if model.stage == "ar" and config.train.code_noise:
            rows = add_code_noise(rows, config.train.code_noise, model.codebook_size, noise_key)
        if model.stage == "ar" and config.train.text_dropout:
            rows = drop_text(rows, config.train.text_dropout, jax.random.fold_in(noise_key, 1))
        sums = decoder_loss_sums(
            decoder, params, rows, dropout_key if model.dropout else None, chunk=config.train.loss_chunk
        )
        return sums.loss / targets, sums

    gradient = jax.grad(loss, has_aux=True)
    if accumulate == 1:
        grads, sums = gradient(state.params, batch, step_key)
    else:

        def add(total, inputs):
            rows, index = inputs
            return jax.tree.map(jnp.add, total, gradient(state.params, rows, jax.random.fold_in(step_key, index))), None

        rows = _microbatches(batch, accumulate)
        one = jax.tree.map(lambda x: x[0], rows)
        zero = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, state.params, one, step_key)
        )
        (grads, sums), _ = jax.lax.scan(add, zero, (rows, jnp.arange(accumulate)))

    grad_norm = optax.tree_utils.tree_norm(grads)
    applied = jnp.isfinite(sums.loss) & jnp.isfinite(grad_norm)
    learning_rate = learning_rate_schedule(config)(state.step)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p + learning_rate * u, state.params, updates)
    average = state.ema_params
    if average is not None:
        decay = config.optimizer.ema_decay
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
    new = TrainState(state.step + 1, params, opt_state, average)
    kept = TrainState(state.step + 1, state.params, state.opt_state, state.ema_params)
    state = jax.tree.map(lambda n, k: jnp.where(applied, n, k), new, kept)

    frames, tokens = batch_sizes(batch, model)
    return state, {
        "loss": sums.loss / targets,
        "accuracy_top10": sums.correct_top10 / targets,
        "grad_norm": grad_norm,
        "learning_rate": learning_rate,
        "applied": applied,
        "frames": frames,
        "fill": tokens / batch["segment"].size,
    }


def jit_train_step(
    config: Config, decoder: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """`train_step` compiled for the mesh, to be called under `jax.set_mesh`; the state is donated."""
    shardings = state_shardings(mesh, decoder, optimizer, ema=config.optimizer.ema_decay > 0)
    return jax.jit(
        functools.partial(train_step, config, decoder, optimizer),
        out_shardings=(shardings, named_sharding(mesh, ())),
        donate_argnums=0,
    )


def jit_eval_step(decoder: Decoder, mesh: Mesh) -> Callable[[Params, Batch], Sums]:
    """The sums of a batch without dropout, compiled for the mesh. Call it under `jax.set_mesh`."""

    def evaluate(params: Params, batch: Batch) -> Any:
        return loss_sums(decoder.logits(params, batch), batch, decoder.config)

    return jax.jit(evaluate, out_shardings=named_sharding(mesh, ()))
