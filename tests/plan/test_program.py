"""The plan compiles what training runs, and its memory is what training takes."""

import jax
import numpy as np
import pytest
from packed import pack, tiny_config

from valle_jax.inference import batching
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.program import compile_for, memory_of, trace_sampler, trace_train_step
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state
from valle_jax.train.step import jit_train_step


def real_run(config, mesh):
    """Step function, state, batch and key, as the training loop makes them."""
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    state = init_state(decoder, optimizer, mesh, 0, ema=False)
    row = pack([], config.data.row_length, config.model)
    if config.model.stage == "ar":
        row = {name: row[name] for name in ("token", "kind", "segment", "position", "target")}
    rows = {name: np.repeat(x, config.train.rows, axis=0) for name, x in row.items()}
    batch = HostRows.of(mesh, config.train.rows).place(rows)
    return jit_train_step(config, decoder, optimizer, mesh), state, batch, jax.random.key(0)


@pytest.mark.parametrize(
    ("stage", "sizes", "accumulate"), [("ar", {"data": 2, "fsdp": 2, "tensor": 2}, 1), ("nar", {"fsdp": 4}, 2)]
)
def test_plan_and_training_run_the_same_program(make_config, cpu8, stage, sizes, accumulate):
    config = make_config(stage, dropout=0.1, remat="dots", train={"accumulate": accumulate})
    mesh = make_mesh(sizes, cpu8.devices)
    planned = trace_train_step(config, mesh)
    step, *arguments = real_run(config, mesh)
    with jax.set_mesh(mesh):
        traced = step.trace(*arguments)
    assert str(planned.jaxpr) == str(traced.jaxpr)
    assert [a.sharding for a in jax.tree.leaves(planned.in_avals)] == [
        a.sharding for a in jax.tree.leaves(traced.in_avals)
    ]


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_plan_and_synthesis_run_the_same_program(monkeypatch, cpu8, stage):
    model, mesh = tiny_config(stage), make_mesh({"data": 1}, cpu8.devices[:1])
    decoder = build(model)
    with_params = decoder, jax.jit(decoder.init)(jax.random.key(0))
    sampler, calls = getattr(batching, f"generate_{stage}"), []

    def remember(*arguments, **options):
        calls.append((arguments, options))
        return sampler(*arguments, **options)

    monkeypatch.setattr(batching, f"generate_{stage}", remember)
    text, prompt = np.arange(3, 12, dtype=np.int32), np.ones((7, model.codebooks), np.int32)
    jobs = [batching.Job(text, prompt, min_frames=0, max_frames=frames) for frames in (3, 5)]
    if stage == "ar":
        keys = jax.random.split(jax.random.key(0), len(jobs))
        batching.sample_first_codebook(jobs, with_params, keys, Sampling(temperature=0.8, top_p=0.95))
    else:
        batching.fill_codebooks(jobs, [np.zeros(job.max_frames, np.int32) for job in jobs], with_params)
    ((arguments, options),) = calls
    rows, length = arguments[2]["token"].shape
    frames = options["max_frames" if stage == "ar" else "frames"]
    planned = trace_sampler(model, mesh, rows=rows, prefix=length - frames * (stage == "nar"), frames=frames)
    # Synthesis sets no mesh; under one of a single device, constraints change nothing but are written down.
    with jax.set_mesh(mesh):
        assert str(planned.jaxpr) == str(sampler.trace(*arguments, **options).jaxpr)


def test_planned_memory_is_that_of_a_real_run(make_config, cpu8):
    config = make_config(d_model=64, d_ff=256, n_layers=4, data={"row_length": 256})
    mesh = make_mesh({"data": 2, "fsdp": 4}, cpu8.devices)
    planned = memory_of(compile_for(trace_train_step(config, mesh), mesh))
    step, *arguments = real_run(config, mesh)
    device = mesh.devices.flat[0]
    held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(arguments[:2])
        for shard in leaf.addressable_shards
        if shard.device == device
    )
    # The key of the run is no argument: without dropout nothing is drawn.
    assert planned.arguments == held
    with jax.set_mesh(mesh):
        run = step.lower(*arguments).compile().memory_analysis()
        state, _ = step(*arguments)
    assert planned.arguments == run.argument_size_in_bytes
    # The same program is compiled twice; only the order of its instructions may differ.
    assert planned.temporaries == pytest.approx(run.temp_size_in_bytes, rel=0.05)
    # The new state takes the place of the donated one: results are the metrics, seven scalars and their table.
    assert planned.outputs < 1024
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(arguments[0]))
    assert int(state.step) == 1
