"""The learning-rate schedule and what decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_helpers import sized, tiny_config

from valle_jax.inference.model_dir import flatten
from valle_jax.model import build
from valle_jax.train.optimizer import decay_mask, learning_rate_schedule, make_optimizer


def test_schedule():
    schedule = learning_rate_schedule(
        tiny_config(optimizer__learning_rate=1.0, optimizer__warmup_steps=4, train__steps=12)
    )
    rates = [float(schedule(step)) for step in range(14)]
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    np.testing.assert_allclose(rates, expected)


def test_schedule_without_warmup_and_shorter_than_warmup():
    config = tiny_config(optimizer__learning_rate=1.0, optimizer__warmup_steps=0, train__steps=2)
    assert [float(learning_rate_schedule(config)(s)) for s in range(3)] == [1.0, 0.5, 0.0]
    short = tiny_config(optimizer__learning_rate=1.0, optimizer__warmup_steps=10, train__steps=4)
    np.testing.assert_allclose([learning_rate_schedule(short)(s) for s in range(4)], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_matrices_decay_and_nothing_else(stage):
    decoder = build(sized(tiny_config(stage)).model)
    decays = flatten(decay_mask(decoder.axes))
    # Told by name, independently of the axes.
    matrices = {"acoustic", "phonemes", "stage", "w_qkv", "w_o", "w_in", "w_out", "modulation"}
    assert {name for name, decay in decays.items() if decay} == {n for n in decays if n.split(".")[-1] in matrices}
    assert len(decays) > sum(decays.values()) > 0


def test_decay_acts_by_the_mask():
    config = sized(tiny_config(optimizer__weight_decay=0.5))
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    params = jax.tree.map(lambda p: jnp.ones(p.shape), decoder.abstract_params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(lambda p, g: optimizer.update(g, optimizer.init(p), p))(params, zeros)
    for name, update in flatten(updates).items():
        expected = -0.5 if flatten(decay_mask(decoder.axes))[name] else 0.0
        np.testing.assert_array_equal(update, np.full(update.shape, expected, np.float32), name)
