"""The training step with Splash, compiled ahead of time for TPU chips that need not be there."""

import jax
import jax.numpy as jnp
import pytest
from packed import pack, tiny_config

from valle_jax.config import Config, TrainConfig
from valle_jax.model import build
from valle_jax.parallel.mesh import make_mesh
from valle_jax.parallel.sharding import named_sharding
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import abstract_state
from valle_jax.train.step import jit_train_step


@pytest.mark.parametrize(("stage", "mesh_sizes"), [("ar", {"data": 2, "tensor": 2}), ("nar", {"data": 2, "fsdp": 2})])
def test_the_training_step_compiles_with_splash(v5e, stage, mesh_sizes):
    model = tiny_config(stage, d_model=256, d_ff=512, attention="splash", remat="dots")  # heads of 64, as the paper's
    config = Config(model=model, train=TrainConfig(rows=4, loss_chunk=128))
    decoder, mesh = build(model), make_mesh(mesh_sizes, v5e)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    rows = named_sharding(mesh, ("batch",))
    batch = {
        name: jax.ShapeDtypeStruct((4, *x.shape[1:]), jnp.int32, sharding=rows)
        for name, x in pack([], 256, model).items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = abstract_state(decoder, optimizer, mesh, ema=False)
    step = jit_train_step(config, decoder, optimizer, mesh)
    with jax.set_mesh(mesh):
        traced = step.trace(state, batch, key)
        text = traced.lower(lowering_platforms=("tpu",)).compile().as_text()
    calls = [line for line in text.splitlines() if "custom-call(" in line]
    for kernel in ("splash_mha_fwd_segmented", "splash_mha_dkv_segmented"):
        assert sum(kernel in line for line in calls) == 1  # in the layers' loops; `dots` keeps what the backward needs
    # The loss is computed over chunks of 128 tokens and a vocabulary padded to 128 columns.
    rows_per_device = 4 // (mesh.shape["data"] * mesh.shape["fsdp"])
    assert f"f32[{rows_per_device},128,128]" in text
