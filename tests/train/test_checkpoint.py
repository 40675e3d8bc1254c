"""Which checkpoints stay, which is chosen, and what `valle export` reads."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from checkpoint_helpers import CONFIG, DECODER, OPTIMIZER, state_of, value_of
from train_helpers import CODEC, VOCABULARY

from valle_jax import config as config_lib
from valle_jax.errors import UserError
from valle_jax.parallel.mesh import make_mesh
from valle_jax.train.checkpoint import Checkpoints, Progress, complete_steps, load_params
from valle_jax.train.state import abstract_state


def save_run(workdir, fresh, losses, *, keep=2, ema=True):
    """A work directory with a checkpoint for each step 1, 2, … of this validation loss."""
    workdir.mkdir(exist_ok=True)
    config_lib.save(CONFIG, workdir / "config.json")
    (workdir / "vocabulary.json").write_text(json.dumps(VOCABULARY.to_json()))
    (workdir / "codec.json").write_text(json.dumps(CODEC.to_json()))
    checkpoints = Checkpoints(workdir, keep=keep)
    for step, loss in enumerate(losses, start=1):
        state = state_of(fresh, step)
        state = state if ema else dataclasses.replace(state, ema_params=None)
        checkpoints.save(state, Progress(step, 4 * step, {"model.d_model": 16}, nonfinite=step - 1), loss)
    checkpoints.wait()
    return checkpoints


def test_the_newest_and_the_best_stay(fresh, tmp_path):
    save_run(tmp_path, fresh, [3.0, 1.0, float("nan"), None, 2.0]).close()
    assert complete_steps(tmp_path) == [2, 4, 5]
    best, latest = load_params(tmp_path), load_params(tmp_path, "latest")
    assert (best.step, latest.step) == (2, 5)
    assert (value_of(best), value_of(latest)) == (1.0, 2.5)  # the averages
    assert value_of(load_params(tmp_path, ema=False)) == 2.0
    assert best.config == CONFIG and best.vocabulary == VOCABULARY.to_json() and best.codec == CODEC.to_json()
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(best.params))


def test_without_validation_the_best_is_the_newest(fresh, tmp_path):
    save_run(tmp_path, fresh, [None, None, None]).close()
    assert complete_steps(tmp_path) == [2, 3] and load_params(tmp_path).step == 3


def test_progress_and_a_step_saved_twice(fresh, tmp_path):
    checkpoints = save_run(tmp_path, fresh, [None, None])
    checkpoints.save(state_of(fresh, 7), Progress(2, 0, {}))
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2)
    assert again.progress() == Progress(2, 8, {"model.d_model": 16}, nonfinite=1)
    again.close()
    assert value_of(load_params(tmp_path, ema=False)) == 2.0
    empty = Checkpoints(tmp_path / "new", keep=2)
    assert empty.progress() is None
    empty.close()


@pytest.mark.parametrize("with_average", [True, False])
def test_restoring_places_the_state_on_another_mesh(fresh, tmp_path, with_average):
    """Where the saved run kept no average, a new one starts from the parameters, in buffers of its own."""
    checkpoints = save_run(tmp_path, fresh, [None], ema=with_average)
    abstract = abstract_state(DECODER, OPTIMIZER, make_mesh({"data": 2, "tensor": 2}), ema=True)
    state = checkpoints.restore(1, abstract)
    checkpoints.close()
    assert int(state.step) == 1
    for restored, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (restored.shape, restored.dtype, restored.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
    for tree, value in ((state.params, 1.0), (state.ema_params, 0.5 if with_average else 1.0)):
        for leaf in jax.tree.leaves(tree):
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, value, np.float32))
    pointers = [
        leaf.addressable_shards[0].data.unsafe_buffer_pointer()
        for leaf in jax.tree.leaves((state.params, state.ema_params))
    ]
    assert len(set(pointers)) == len(pointers)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.opt_state), jax.device_get(fresh.opt_state))


def test_what_is_no_run_is_told(fresh, tmp_path):
    with pytest.raises(UserError, match=r"is not a work directory of `valle train`: config\.json is missing"):
        load_params(tmp_path / "nothing")
    save_run(tmp_path, fresh, []).close()
    with pytest.raises(UserError, match=r"has no complete checkpoint; train at least train\.checkpoint_every steps"):
        load_params(tmp_path)
    (tmp_path / "codec.json").unlink()
    save_run(tmp_path / "other", fresh, [None]).close()
    (tmp_path / "other" / "codec.json").unlink()
    with pytest.raises(UserError, match=r"codec\.json is missing"):
        load_params(tmp_path / "other")
