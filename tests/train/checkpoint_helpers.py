"""A decoder whose checkpoints tell which step they are of."""

import dataclasses

import jax
import numpy as np
from train_helpers import VOCABULARY, sized, tiny_config

from valle_jax.inference.model_dir import flatten
from valle_jax.model import build
from valle_jax.train.optimizer import make_optimizer

CONFIG = sized(tiny_config(model__n_layers=1, optimizer__ema_decay=0.5), VOCABULARY.size)
DECODER = build(CONFIG.model)
OPTIMIZER = make_optimizer(CONFIG.optimizer, DECODER.axes)


def state_of(fresh, step):
    """Parameters full of the step's number, an average of half of it."""
    params, average = (
        jax.tree.map(lambda x, v=value: jax.device_put(np.full(x.shape, v, np.float32), x.sharding), fresh.params)
        for value in (step, step / 2)
    )
    return dataclasses.replace(fresh, params=params, ema_params=average)


def value_of(run):
    """The one value that all parameters of a run have."""
    (value,) = {float(v) for leaf in flatten(run.params).values() for v in np.unique(leaf)}
    return value
