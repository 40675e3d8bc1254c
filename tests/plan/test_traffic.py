"""Bytes moved, against XLA's analysis of a program without loops and against what a loop must move."""

import jax
import jax.numpy as jnp
import pytest

from valle_jax.plan.hlo import parse_arrays, parse_module
from valle_jax.plan.traffic import hbm_bytes

SIDE = 256
ARRAY = SIDE * SIDE * 4


def compiled(function, *shapes):
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()


def test_a_program_without_loops_moves_what_xla_says():
    program = compiled(lambda x, w: jnp.tanh(x @ w).T @ w + 1.0, (SIDE, SIDE), (SIDE, SIDE))
    # XLA also counts what stays in caches, as the transposed operand.
    assert hbm_bytes(parse_module(program.as_text())) == pytest.approx(
        program.cost_analysis()["bytes accessed"], rel=0.05
    )


@pytest.mark.parametrize("layers", [4, 16])
def test_a_loop_moves_one_slice_of_its_weights_at_a_time(layers):
    program = compiled(
        lambda x, w: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x), x, w), (SIDE, SIDE), (layers, SIDE, SIDE)
    )
    moved = hbm_bytes(parse_module(program.as_text())) / layers / ARRAY
    # Each turn takes its w out of all (2), multiplies (3), takes tanh (2), and keeps x (2), in a buffer that was zeroed
    # before (1); a CPU also copies x (2). A compiler may fuse some of it. All of w in each turn would be `layers` more.
    assert 7 <= moved <= 13


def test_loops_of_unknown_length_are_told():
    program = compiled(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x * 1.5, x), (SIDE, SIDE))
    once, ten = (parse_module(program.as_text(), unknown_trips=trips) for trips in (1, 10))
    assert len(once.unknown_loops) == 1
    assert hbm_bytes(ten) > 5 * hbm_bytes(once)


def test_types():
    (array,) = parse_arrays("bf16[12,4,2560]{2,1,0:T(8,128)(2,1)S(1)}")
    assert (array.shape, array.bytes, array.space) == ((12, 4, 2560), 12 * 4 * 2560 * 2, 1)
    assert [a.bytes for a in parse_arrays("(pred[8]{0}, /*index=1*/f32[]{:T(128)}, s4[16]{0}, token[])")] == [
        8,
        4,
        8,
        0,
    ]
