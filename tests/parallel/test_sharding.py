"""The logical-axis table and the check that a mesh divides a model."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from valle_jax.config import ModelConfig
from valle_jax.errors import UserError
from valle_jax.model import build
from valle_jax.parallel.mesh import AXES, make_mesh
from valle_jax.parallel.sharding import MESH_AXES, check_divides, constrain, named_sharding, spec, tree_shardings


def small_model(**kwargs):
    sizes = {
        "d_model": 32,
        "n_heads": 4,
        "d_ff": 64,
        "n_layers": 2,
        "n_symbols": 11,
        "codebooks": 3,
        "codebook_size": 5,
    }
    return build(ModelConfig(**{**sizes, **kwargs}))


def test_table_names_mesh_axes():
    assert {axis for axes in MESH_AXES.values() for axis in axes} == set(AXES)


def test_spec():
    assert spec(("batch", "length", "heads", None)) == P(("data", "fsdp"), None, "tensor", None)
    assert spec(("vocab", "embed")) == P(None, "fsdp")
    assert spec(()) == P()


@pytest.mark.parametrize("axes", [("heads", "mlp"), ("batch", "embed"), ("embed", "embed")])
def test_two_axes_on_one_mesh_axis(axes):
    with pytest.raises(ValueError, match="both lie on mesh axis"):
        spec(axes)


def test_unknown_axis():
    with pytest.raises(ValueError, match=r"'header' of .* is not in the table"):
        spec(("header",))


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_every_parameter_has_a_place(stage):
    decoder = small_model(stage=stage)
    shardings = tree_shardings(make_mesh({"fsdp": 2, "tensor": 4}), decoder.axes)
    for shape, sharding in zip(jax.tree.leaves(decoder.abstract_params), jax.tree.leaves(shardings), strict=True):
        sharding.shard_shape(shape.shape)  # raises where it does not divide


def test_constrain_needs_a_mesh():
    x = jnp.ones((8, 4))
    assert constrain(x, ("batch", None)) is x
    mesh = make_mesh({"data": 4, "fsdp": 2})
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x, ("batch", None)))(x)
    assert y.sharding.is_equivalent_to(named_sharding(mesh, ("batch", None)), 2)
    assert y.addressable_shards[0].data.shape == (1, 4)


@pytest.mark.parametrize(
    "sizes, model, rows, message",
    [
        ({"data": 4}, {}, 6, "6 rows per microbatch .* not divisible by mesh data=4 x fsdp=1; use a multiple of 4"),
        ({"tensor": 8}, {}, 8, "model.n_heads=4 is not divisible by mesh tensor=8"),
        ({"fsdp": 4}, {"d_model": 34, "n_heads": 2}, 8, "model.d_model=34 is not divisible by mesh fsdp=4"),
        ({"tensor": 4}, {"d_ff": 30}, 8, "model.d_ff=30 is not divisible by mesh tensor=4"),
    ],
)
def test_mesh_that_does_not_divide(sizes, model, rows, message):
    decoder = small_model(**model)
    with pytest.raises(UserError, match=message):
        check_divides(make_mesh(sizes), decoder.axes, decoder.abstract_params, rows)


def test_odd_vocabularies_divide():
    decoder = small_model(codebook_size=1024, n_symbols=199)
    check_divides(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}), decoder.axes, decoder.abstract_params, 4)
