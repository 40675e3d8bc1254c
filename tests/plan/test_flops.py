"""FLOPs counted from the configuration against the matrix products of the compiled program."""

import math
import re

import pytest

from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.flops import Speech
from valle_jax.plan.hlo import parse_module
from valle_jax.plan.program import compile_for, trace_train_step
from valle_jax.plan.topology import get_topology
from valle_jax.plan.train_plan import describe

SPEECH = Speech(seconds=1.0)


def product_flops(module) -> float:
    """2 x results x contracted sizes of all `dot`s, as often as they run."""
    total = 0.0
    for name, instructions in module.computations.items():
        for dot in (i for i in instructions.values() if i.opcode == "dot"):
            sizes = instructions[dot.operands[0]].arrays[0].shape
            axes = re.search(r"lhs_contracting_dims=\{([\d,]+)\}", dot.attributes)[1]
            contracted = math.prod(sizes[int(axis)] for axis in axes.split(","))
            total += 2 * math.prod(dot.arrays[0].shape) * contracted * module.runs[name]
    return total


@pytest.mark.parametrize(
    ("remat", "chunk", "changes"),
    [("none", 0, {"activation": "swiglu"}), ("dots", 64, {}), ("full", 0, {}), ("none", 64, {"group_size": 2})],
)
def test_work_is_that_of_the_compiled_products(make_config, remat, chunk, changes):
    config = make_config(n_layers=3, d_model=64, attention="xla", remat=remat, train={"loss_chunk": chunk}, **changes)
    topology = get_topology("cpu:1")
    mesh = make_mesh(None, topology.devices)
    module = parse_module(compile_for(trace_train_step(config, mesh), mesh).as_text())
    # Every product is counted, and the program has no others.
    assert describe(config, topology, mesh, SPEECH)["flops"].computed == product_flops(module)
    assert not module.unknown_loops


def test_work_of_one_layer_is_what_xla_says(make_config):
    """With one layer XLA's own analysis, which counts a loop's body once, sees everything."""
    config = make_config(n_layers=1, d_model=256, d_ff=1024, attention="xla", data={"row_length": 512})
    topology = get_topology("cpu:1")
    mesh = make_mesh(None, topology.devices)
    compiled = compile_for(trace_train_step(config, mesh), mesh)
    ours = describe(config, topology, mesh, SPEECH)["flops"].computed
    # XLA also counts what is no product, a few operations per element: about 2 % at this width.
    assert ours <= compiled.cost_analysis()["flops"] <= 1.04 * ours


def test_attention_is_counted_as_each_backend_computes_it(make_config):
    mesh = make_mesh(None, get_topology("cpu:1").devices)
    topology = get_topology("cpu:1")
    flops = {
        name: describe(make_config(attention=name, data={"row_length": 512}), topology, mesh, SPEECH)["flops"]
        for name in ("xla", "blocked")
    }
    per_key = 4 * 8 * 512 * 32 * 2  # scores and their use, rows, tokens, width, layers
    assert flops["xla"].attention == 3 * per_key * 512
    # Half of a segment of 90 tokens, and a block of 128; scores are computed twice in the backward pass.
    assert flops["blocked"].attention == 3.5 * per_key * ((90 + 1) / 2 + 128)
    assert flops["xla"].attention_useful == flops["blocked"].attention_useful < flops["blocked"].attention
