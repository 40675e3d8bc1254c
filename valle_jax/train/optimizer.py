"""AdamW with warm-up and linear decay to zero (P1, training)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from valle_jax.config import Config, OptimizerConfig


def learning_rate_schedule(config: Config) -> optax.Schedule:
    """Linear to the peak over the warm-up, then linear to 0 at `train.steps`; a function of the step number.

    Step 0 already moves, by peak / warmup_steps. A run that is shorter than its warm-up never reaches the peak.
    """
    peak, warmup, steps = config.optimizer.learning_rate, config.optimizer.warmup_steps, config.train.steps

    def schedule(step):
        rise = (step + 1) / max(warmup, 1)
        fall = (steps - step) / max(steps - warmup, 1)
        return peak * jnp.clip(jnp.minimum(rise, fall), 0.0, 1.0)

    return schedule


def decay_mask(axes: Any) -> Any:
    """Which parameters decay: matrices and embeddings, which all have the logical axis "embed"; biases, norms and
    scalars have not. (The number of dimensions does not tell: stacked layers and heads give biases three.)

    `axes` is `Decoder.axes`; the result has its structure and holds bools.
    """
    return jax.tree.map(lambda leaf: "embed" in leaf, axes, is_leaf=lambda x: isinstance(x, tuple))


def make_optimizer(config: OptimizerConfig, axes: Any) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled weight decay, for a learning rate of 1.

    The train step multiplies by `learning_rate_schedule(step)`: steps that were not applied for a non-finite gradient
    then count in the schedule but not in Adam's bias correction.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decay_mask(axes)),
        optax.scale(-1.0),
    )
