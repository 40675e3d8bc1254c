"""Collectives read from a scanned program against those of the same program without a loop."""

import jax
import numpy as np
import pytest

from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.collectives import Collective, _members, find_collectives
from valle_jax.plan.hlo import Instruction, parse_module
from valle_jax.plan.program import compile_for, trace_train_step


def sent_by_kind(config, mesh) -> dict[tuple[str, str], float]:
    module = parse_module(compile_for(trace_train_step(config, mesh), mesh).as_text())
    totals: dict[tuple[str, str], float] = {}
    for collective in find_collectives(module, mesh):
        key = collective.kind, collective.axes
        totals[key] = totals.get(key, 0.0) + collective.sent_bytes
    return totals


def test_scanned_layers_send_what_unrolled_ones_do(make_config, cpu8, monkeypatch):
    config = make_config(n_layers=3, d_model=64, d_ff=256, attention="xla", remat="none")
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2}, cpu8.devices)
    scanned = sent_by_kind(config, mesh)
    scan = jax.lax.scan
    monkeypatch.setattr(jax.lax, "scan", lambda *args, **options: scan(*args, **{**options, "unroll": True}))
    unrolled = sent_by_kind(config, mesh)
    # The partitioner chooses anew where there is no loop, so kinds may differ a little, but not what is sent.
    assert sum(scanned.values()) == pytest.approx(sum(unrolled.values()), rel=0.1)
    main = max(scanned, key=lambda key: scanned[key])
    assert scanned[main] == pytest.approx(unrolled[main], rel=0.1)


def test_bytes_of_known_collectives(cpu8):
    """A sum over `fsdp` and a gathering over `data`, three times each: sizes can be told beforehand."""
    mesh = make_mesh({"data": 2, "fsdp": 4}, cpu8.devices)
    spec = jax.sharding.PartitionSpec

    def body(x, _):
        summed = jax.lax.psum(x, "fsdp")
        gathered = jax.lax.all_gather(summed, "data", tiled=True)
        return x + jax.numpy.sin(gathered).sum(0, keepdims=True), None

    def function(x):
        return jax.lax.scan(body, x, length=3)[0]

    mapped = jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=spec("data", "fsdp"), out_specs=spec("data", "fsdp"), check_vma=False
        )
    )
    compiled = mapped.lower(jax.ShapeDtypeStruct((16, 64), np.float32)).compile()
    found = {c.kind: c for c in find_collectives(parse_module(compiled.as_text()), mesh)}
    block = 8 * 16 * 4
    assert found["all-reduce"].axes == "fsdp"
    assert found["all-reduce"].sent_bytes == 3 * 2 * 3 / 4 * block
    assert found["all-gather"].axes == "data"
    assert found["all-gather"].sent_bytes == 3 * 1 / 2 * 2 * block


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", [0, 2]),
        ("replica_groups=[2,4]<=[8]", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [0, 1, 2, 3]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", list(range(8))),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", [0, 2]),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", [0, 1]),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={1}", [0, 1, 2, 3]),
        ("source_target_pairs={{3,5},{5,3}}", [3, 5]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_every_way_to_write_groups(groups, members):
    instruction = Instruction("x", "all-reduce", "f32[8]{0}", (), f", channel_id=1, {groups}, to_apply=%add", "")
    assert _members(instruction, 8) == members


def test_groups_that_are_not_understood_are_no_groups_of_all():
    with pytest.raises(AssertionError, match="unknown groups"):
        _members(Instruction("x", "all-reduce", "f32[8]{0}", (), ", replica_groups=new<8>", ""), 8)


def test_sent_and_between_slices():
    """Of 800 bytes summed over two slices of four chips, 2 x 7/8 go round the ring, a quarter to the other slice."""
    summed = Collective("all-reduce", "data", group=8, slices=2, runs=3, payload_bytes=800)
    assert summed.sent_bytes == 3 * 1400
    assert summed.network_bytes == 3 * 200
    assert Collective("all-gather", "data", group=8, slices=1, runs=1, payload_bytes=800).network_bytes == 0
