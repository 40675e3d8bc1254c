"""Plans for absent TPUs: they compile for every generation and fit as they say."""

import json

import pytest

from valle_jax.config import Config
from valle_jax.configs import get_preset
from valle_jax.errors import UserError
from valle_jax.parallel.chips import CHIPS
from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.estimate import estimate
from valle_jax.plan.flops import Speech
from valle_jax.plan.report import mesh_text, train_report
from valle_jax.plan.search import mesh_shapes, rank, search, search_report
from valle_jax.plan.topology import Topology
from valle_jax.plan.train_plan import plan_training, with_rows

SPEECH = Speech(seconds=2.0)
MIB = 2**20


@pytest.fixture(scope="module")
def tpu_config(make_config):
    """As small as Splash, with heads of 64, allows."""
    return make_config(d_model=128, n_heads=2, d_ff=256, remat="dots", data={"row_length": 256})


@pytest.fixture(scope="module")
def found(tpu, tpu_config):
    """What the search finds for a v5e:2x2."""
    return search(tpu_config, tpu("v5e:2x2"), SPEECH, candidates=2)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("v4:2x2x1", "v5p:2x2x1")]


@pytest.mark.parametrize("name", ["v5e:2x2", "v6e:2x2", *SLOW])
def test_the_step_compiles_for_every_generation(tpu, tpu_config, name):
    plan = plan_training(tpu_config, tpu(name), {"data": 2, "fsdp": 2}, SPEECH)
    assert plan.fits
    assert plan.attention == "splash"
    # The state's shards take 1.61 MiB, two of eight rows 0.02 MiB; TPUs store biases and norms in tiles of 8 x 128.
    assert 1.6 * MIB < plan.memory.arguments < 2.5 * MIB
    # Two rows of 256 tokens: activations of 0.25 MiB a layer at most; kernels and logits make some MiB.
    assert plan.memory.temporaries < 16 * MIB
    assert {c.axes for c in plan.collectives} <= {"data", "fsdp", "data+fsdp"}
    # The gradients of all parameters are summed over `data`, in bfloat16 or float32.
    summed = sum(c.sent_bytes for c in plan.collectives if c.kind in ("all-reduce", "reduce-scatter"))
    assert 2 * plan.parameters / 2 < summed < 4 * 4 * plan.parameters
    assert plan.roofline.seconds <= plan.roofline.seconds_without_overlap
    assert 0 < plan.mfu_bound(plan.roofline.seconds) < 1


def test_the_report_says_what_the_plan_says(found):
    plan = found.plans[0]
    text = train_report(plan)
    parts = (
        "v5e:2x2",
        mesh_text(plan.mesh),
        f"remat={plan.config.model.remat}",
        "fits",
        f"bound by {plan.roofline.bound_by}",
    )
    assert all(part in text for part in parts)
    record = json.loads(json.dumps(plan.to_json()))
    assert record["memory"]["peak"] == plan.memory.peak
    assert record["roofline"]["bound_by"] in plan.roofline.limits
    assert Config.from_json(record["config"]) == plan.config


def test_a_step_that_is_too_large_is_refused(tpu):
    sizes = {"model.n_symbols": 200, "model.codebooks": 8, "model.codebook_size": 1024}
    config = get_preset("base", "ar").override(sizes | {"model.remat": "none", "train.rows": 128})
    plan = plan_training(config, tpu("v5e:2x2"), {"data": 4}, SPEECH)
    assert not plan.fits
    assert plan.out_of_memory.needed > plan.out_of_memory.available > 15 * 2**30
    assert "DOES NOT FIT" in train_report(plan)


def test_slices_meet_over_the_network(tpu, tpu_config):
    plan = plan_training(tpu_config, tpu("v5e:2x2", 2), {"data": 8}, SPEECH)
    between = [c for c in plan.collectives if c.slices == 2]
    assert {c.axes for c in between} == {"data"}
    # Each of the four chips of a slice exchanges its quarter of the gradients, of 2 or 4 bytes.
    assert 0.45 * plan.parameters < sum(c.network_bytes for c in between) < 1.3 * plan.parameters
    assert plan.roofline.network > 0


def test_estimates_rank_by_time_and_keep_to_what_divides(cpu8, make_config):
    config = make_config(d_model=64, n_layers=4, train={"rows": 8})
    topology = Topology("v5e", 1, cpu8.devices, next(chip for chip in CHIPS if chip.name == "TPU v5e"))
    estimates = rank(config, topology, SPEECH)
    seconds = [e.roofline.seconds_without_overlap for e in estimates]
    assert seconds == sorted(seconds)
    shapes = {tuple(e.mesh.shape.values()) for e in estimates}
    assert (1, 1, 8) not in shapes  # four heads
    assert (8, 1, 1) in shapes
    assert len(mesh_shapes(8)) == 10
    small, large = (estimate(config, make_mesh(m, cpu8.devices), topology.chip, SPEECH) for m in ({"fsdp": 8}, None))
    assert small.memory < large.memory


def test_search_ranks_what_fits(found):
    times = [plan.roofline.seconds_without_overlap for plan in found.plans]
    assert len(times) == 2
    assert times == sorted(times)
    assert all(plan.fits for plan in found.plans)
    assert {plan.config.model.remat for plan in found.plans} == {"none", "dots"}
    assert found.plans[0].mesh != found.plans[1].mesh
    text = search_report(found)
    assert text.index(mesh_text(found.plans[0].mesh)) < text.index("By estimate only")


def test_wrong_meshes(cpu8, make_config):
    with pytest.raises(UserError, match="needs 16 devices"):
        plan_training(make_config(), cpu8, {"data": 16}, SPEECH)
    with pytest.raises(UserError, match="not divisible by mesh data=8"):
        plan_training(make_config(train={"rows": 4}), cpu8, {"data": 8}, SPEECH)
    with pytest.raises(UserError, match=r"model.n_heads=4 is not divisible by mesh tensor=8"):
        plan_training(make_config(), cpu8, {"tensor": 8}, SPEECH)
    with pytest.raises(UserError, match="speed is known"):
        rank(make_config(), cpu8, SPEECH)


def test_rows_default_to_the_papers_batch(cpu8, make_config):
    config = get_preset("base", "ar").override({"model.n_symbols": 200})
    rows = with_rows(config, cpu8, {"data": 4, "fsdp": 2}, Speech()).train.rows
    # 96k frames; a row of 2,560 tokens, 97 % full, of 923 frames in 1,096 tokens holds 2,090.
    assert rows == 48 == 8 * round(96_000 / 2090 / 8)
