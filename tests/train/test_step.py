"""One step: against NumPy, over meshes, over microbatches, and when the numbers are not finite."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train_helpers import random_rows, sized, tiny_config

from valle_jax.inference.model_dir import flatten
from valle_jax.model import build
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import abstract_state, init_state, state_shardings
from valle_jax.train.step import jit_eval_step, jit_train_step

KEY = jax.random.key(7)


@functools.cache
def first_state(config):
    """Made on one device: that a mesh gives birth to the same is another test."""
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    return init_state(decoder, optimizer, make_mesh({"data": 1}), 0, ema=config.optimizer.ema_decay > 0)


@functools.cache
def compiled(config, mesh_sizes):
    """The mesh, the first state on the host with its shardings, and the step, compiled once."""
    mesh = make_mesh(dict(mesh_sizes))
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    ema = config.optimizer.ema_decay > 0
    state = jax.device_get(first_state(config))
    shardings = state_shardings(mesh, decoder, optimizer, ema=ema)
    return mesh, state, shardings, jit_train_step(config, decoder, optimizer, mesh)


def run_steps(config, batches, mesh_sizes, *, change=lambda state: state):
    """Final state and the metrics of each step, as NumPy."""
    mesh, state, shardings, step = compiled(config, tuple(mesh_sizes.items()))
    # Copies, because the step may write into the buffers of the state that it is given.
    state = jax.device_put(change(jax.tree.map(np.array, state)), shardings)
    all_metrics = []
    with jax.set_mesh(mesh):
        for batch in batches:
            state, metrics = step(state, HostRows.of(mesh, len(batch["token"])).place(batch), KEY)
            all_metrics.append(jax.device_get(metrics))
    return jax.device_get(state), all_metrics


def assert_params_close(a, b, atol):
    for (name, x), y in zip(flatten(a).items(), flatten(b).values(), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=0, err_msg=name)


def numpy_adamw(config, params, grads_of, steps):
    """An independent AdamW in float64 with clipping and the schedule; which parameters decay is told by name."""
    o = config.optimizer
    params = {k: np.asarray(v, np.float64) for k, v in params.items()}
    m, v = ({k: np.zeros_like(p) for k, p in params.items()} for _ in range(2))
    matrices = {"acoustic", "phonemes", "w_qkv", "w_o", "w_in", "w_out"}
    for t in range(1, steps + 1):
        grads = {k: np.asarray(g, np.float64) for k, g in grads_of(params, t - 1).items()}
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        rate = o.learning_rate * min(
            t / o.warmup_steps, (config.train.steps - t + 1) / (config.train.steps - o.warmup_steps)
        )
        for k in params:
            g = grads[k] * min(1.0, o.clip_norm / norm)
            m[k] = o.b1 * m[k] + (1 - o.b1) * g
            v[k] = o.b2 * v[k] + (1 - o.b2) * g**2
            update = m[k] / (1 - o.b1**t) / (np.sqrt(v[k] / (1 - o.b2**t)) + o.eps)
            decay = o.weight_decay if k.split(".")[-1] in matrices else 0.0
            params[k] = params[k] - rate * (update + decay * params[k])
    return params


def test_three_steps_against_numpy():
    """If this fails and the loss did not change on purpose, the optimizer, the schedule or the mean is wrong."""
    config = sized(tiny_config(optimizer__clip_norm=0.5, optimizer__weight_decay=0.1, optimizer__eps=1e-4))
    batches = [random_rows(config, 4, seed) for seed in range(3)]
    decoder = build(config.model)
    start = jax.jit(decoder.init)(jax.random.key(0))

    @jax.jit
    @jax.value_and_grad
    def mean_loss(flat_params, batch):
        leaves = [flat_params[name] for name in flatten(start)]
        params = jax.tree.unflatten(jax.tree.structure(start), leaves)
        log_probs = jax.nn.log_softmax(decoder.logits(params, batch))
        rows, columns = jnp.nonzero(batch["target"] >= 0, size=batch["target"].size, fill_value=-1)
        values = log_probs[rows, columns, batch["target"][rows, columns]]
        return -jnp.where(rows >= 0, values, 0).sum() / (rows >= 0).sum()

    def grads_of(params, i):
        batch = jax.tree.map(jnp.asarray, batches[i])
        return mean_loss({k: jnp.asarray(p, jnp.float32) for k, p in params.items()}, batch)[1]

    expected = numpy_adamw(config, flatten(start), grads_of, steps=3)
    state, metrics = run_steps(config, batches, {"data": 1})
    first, _ = mean_loss(flatten(start), jax.tree.map(jnp.asarray, batches[0]))
    np.testing.assert_allclose(metrics[0]["loss"], first, rtol=1e-6)
    assert metrics[0]["grad_norm"] > config.optimizer.clip_norm  # the norm before clipping
    for name, value in flatten(state.params).items():
        # Three updates of at most about 1e-2 each; float32 gradients differ from the reference's in the last bits.
        np.testing.assert_allclose(value, expected[name], atol=2e-5, rtol=0, err_msg=name)


# Every way to lay eight devices out along the axes.
SIZES = (1, 2, 4, 8)
MESHES = [{"data": d, "fsdp": f, "tensor": t} for d, f, t in itertools.product(SIZES, SIZES, SIZES) if d * f * t == 8]


def cases():
    """All meshes for both stages; those of two axes with `-m slow`."""
    for stage in ("ar", "nar"):
        for sizes in MESHES:
            mixed = sorted(sizes.values()) not in ([1, 1, 8], [2, 2, 2])
            marks = [pytest.mark.slow] if mixed else []
            yield pytest.param(stage, sizes, {}, marks=marks, id=f"{stage}-{'x'.join(map(str, sizes.values()))}")
    yield pytest.param("ar", {"data": 2, "fsdp": 2, "tensor": 2}, {"model__group_size": 2}, id="groups-2x2x2")


@pytest.mark.parametrize("stage, sizes, changes", list(cases()))
def test_eight_devices_are_one_device(stage, sizes, changes):
    changes = {"model__n_layers": 1, "model__n_heads": 8, "model__dropout": 0.2, **changes}
    # eps keeps Adam from turning the last bits of a near-zero gradient into a full step.
    config = sized(tiny_config(stage, optimizer__eps=1e-3, **changes))
    batches = [random_rows(config, 8, seed) for seed in range(2)]
    expected, expected_metrics = run_steps(config, batches, {"data": 1})
    state, metrics = run_steps(config, batches, sizes)
    for mine, other in zip(metrics, expected_metrics, strict=True):
        # Sums in another order: a few float32 roundings.
        np.testing.assert_allclose(mine["loss"], other["loss"], rtol=1e-5)
        np.testing.assert_allclose(mine["grad_norm"], other["grad_norm"], rtol=1e-4)
    assert_params_close(state.params, expected.params, atol=1e-5)


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_accumulation_is_one_big_batch(stage):
    """Rows have different numbers of targets, so a mean of microbatch means would be another loss."""
    config = sized(tiny_config(stage, optimizer__eps=1e-3))
    batches = [random_rows(config, 8)]
    batches[0]["target"][3:] = np.where(np.arange(batches[0]["target"].shape[1]) < 14, batches[0]["target"][3:], -1)
    big, big_metrics = run_steps(config, batches, {"data": 1})
    small, metrics = run_steps(config.override({"train.rows": 8, "train.accumulate": 4}), batches, {"data": 2})
    np.testing.assert_allclose(metrics[0]["loss"], big_metrics[0]["loss"], rtol=1e-6)  # float32 sums
    np.testing.assert_allclose(metrics[0]["grad_norm"], big_metrics[0]["grad_norm"], rtol=1e-5)
    assert metrics[0]["frames"] == big_metrics[0]["frames"]
    assert_params_close(small.params, big.params, atol=1e-6)


def test_nonfinite_step_is_not_applied():
    config = sized(tiny_config(optimizer__ema_decay=0.9))
    batch = random_rows(config, 4)

    def poison(state):
        state.params["embed"]["phonemes"][batch["token"][0, 0]] = np.inf
        return state

    before, _ = run_steps(config, [], {"data": 1}, change=poison)
    after, metrics = run_steps(config, [batch], {"data": 1}, change=poison)
    assert not metrics[0]["applied"] and not np.isfinite(metrics[0]["loss"] + metrics[0]["grad_norm"])
    assert after.step == 1  # the batch is consumed
    for name in ("params", "opt_state", "ema_params"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))


def test_average_follows_the_parameters():
    config = sized(tiny_config(optimizer__ema_decay=0.75))
    batches = [random_rows(config, 4, seed) for seed in range(2)]
    states = [run_steps(config, batches[:n], {"data": 1})[0] for n in range(3)]
    expected = states[0].params
    for state in states[1:]:
        expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, expected, state.params)
    assert_params_close(states[2].ema_params, expected, atol=2.4e-7)  # two float32 roundings of values up to 2
    assert states[2].best_params is states[2].ema_params


def test_dropout_and_noise_are_functions_of_key_and_step():
    config = sized(tiny_config(model__dropout=0.3, train__code_noise=0.2, optimizer__learning_rate=1e-9))
    batch = random_rows(config, 4)
    _, first = run_steps(config, [batch, batch], {"data": 1})
    _, again = run_steps(config, [batch, batch], {"data": 1})
    assert [m["loss"] for m in first] == [m["loss"] for m in again]
    assert abs(first[0]["loss"] - first[1]["loss"]) > 1e-4  # parameters hardly move, the draws do


def test_state_is_born_sharded_as_described():
    config = sized(tiny_config(optimizer__ema_decay=0.9))
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    state = init_state(decoder, optimizer, mesh, 0, ema=True)
    described = abstract_state(decoder, optimizer, mesh, ema=True)
    jax.tree.map(
        lambda x, d: (x.shape, x.dtype, x.sharding) == (d.shape, d.dtype, d.sharding) or pytest.fail(), state, described
    )
    adam = optax.tree_utils.tree_get(state.opt_state, "mu")
    w_in = adam["transformer"]["blocks"]["mlp"]["w_in"]
    assert w_in.addressable_shards[0].data.size * 8 == w_in.size


def test_overfits_one_batch():
    config = sized(tiny_config(train__steps=150, optimizer__learning_rate=1e-2, optimizer__warmup_steps=10))
    batch = random_rows(config, 2)
    state, metrics = run_steps(config, [batch] * 150, {"data": 1})
    assert metrics[0]["loss"] > 2.5 and metrics[-1]["loss"] < 0.1
    mesh = make_mesh({"data": 1})
    with jax.set_mesh(mesh):
        sums = jit_eval_step(build(config.model), mesh)(
            state.params, HostRows.of(mesh, len(batch["token"])).place(batch)
        )
    assert sums.loss / sums.targets < 0.1 and sums.correct_top10 == sums.targets
