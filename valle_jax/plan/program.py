"""Compiling what training and the samplers run, from shapes alone."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from valle_jax.config import Config, ModelConfig
from valle_jax.errors import UserError
from valle_jax.inference.generate import MOST_PROBABLE, generate_ar, generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.parallel.sharding import check_divides, named_sharding
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import abstract_state
from valle_jax.train.step import jit_train_step


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip.

    Attributes:
      arguments: state or parameters, and the batch.
      outputs: results that do not take the place of an argument.
      temporaries: what lives during the step only, most of it activations.
      code: the program.
    """

    arguments: float
    outputs: float
    temporaries: float
    code: float

    @property
    def peak(self) -> float:
        """All of it together."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """The compiler's refusal: bytes that it needed and bytes that it had."""

    needed: float
    available: float


def batch_shapes(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A global batch as the input pipeline places it; see `valle_jax.data.batch`."""
    rows, length, model = config.train.rows, config.data.row_length, config.model
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("token", "kind", "segment", "position", "target"), (rows, length)
    )
    shapes["token"] = shapes["target"] = (rows, length * model.codes_per_step)
    if model.n_languages:
        shapes["language"] = (rows, length)
    if model.stage == "nar":
        shapes |= {"codes": (rows, length, model.codebooks), "stage": (rows,)}
    sharding = named_sharding(mesh, ("batch",))
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding) for name, shape in shapes.items()}


def trace_train_step(config: Config, mesh: Mesh) -> Any:
    """The training step of `valle_jax.train.loop`, traced for the mesh: `jax.stages.Traced`.

    Raises:
      UserError: sizes are missing, or the mesh does not divide the model or the rows.
    """
    decoder = build(config.model)
    check_divides(mesh, decoder.axes, decoder.abstract_params, config.train.rows // config.train.accumulate)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    step: Any = jit_train_step(config, decoder, optimizer, mesh)
    state = abstract_state(decoder, optimizer, mesh, ema=config.optimizer.ema_decay > 0)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.set_mesh(mesh):
        return step.trace(state, batch_shapes(config, mesh), key)


def trace_sampler(model: ModelConfig, mesh: Mesh, *, rows: int, prefix: int, frames: int) -> Any:
    """`generate_ar` or `generate_nar` on one chip, traced: `jax.stages.Traced`.

    Args:
      model: resolved.
      mesh: of one chip.
      rows: utterances side by side.
      prefix: tokens of text and prompt per row.
      frames: to generate, at most.
    """
    if mesh.size != 1:
        raise UserError(f"the samplers run on one chip; a mesh of {mesh.size} makes no sense for them")
    decoder = build(model)
    whole = named_sharding(mesh, ())

    def shape(*dims: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype, sharding=whole)

    params = jax.tree.map(lambda leaf: shape(*leaf.shape, dtype=leaf.dtype), decoder.abstract_params)
    length = prefix if model.stage == "ar" else prefix + frames
    names = ("token", "kind", "segment", "position") + ("language",) * bool(model.n_languages)
    batch = dict.fromkeys(names, shape(rows, length)) | {"token": shape(rows, length * model.codes_per_step)}
    with jax.set_mesh(mesh):
        if model.stage == "nar":
            batch |= {"codes": shape(rows, length, model.codebooks)}
            return generate_nar.trace(decoder, params, batch, MOST_PROBABLE, frames=frames)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
        limits = shape(rows)
        sampling = Sampling(temperature=0.8, top_p=0.95)
        return generate_ar.trace(decoder, params, batch, keys, limits, limits, sampling=sampling, max_frames=frames)


_OUT_OF_MEMORY = re.compile(r"\(?([\d.]+)([KMGT])\)?[^\d]+?\(?([\d.]+)([KMGT])\)?")


def compile_for(traced: Any, mesh: Mesh) -> Any:
    """`jax.stages.Compiled` for the devices of the mesh, or `OutOfMemory` where the compiler finds no room."""
    platform = mesh.devices.flat[0].platform
    with jax.set_mesh(mesh), _without_cache():
        try:
            return traced.lower(lowering_platforms=("cuda" if platform == "gpu" else platform,)).compile()
        except jax.errors.JaxRuntimeError as error:
            found = _OUT_OF_MEMORY.search(str(error)) if "RESOURCE_EXHAUSTED" in str(error) else None
            if found is None:
                raise
            needed, available = (
                float(found[i]) * 2 ** {"K": 10, "M": 20, "G": 30, "T": 40}[found[i + 1]] for i in (1, 3)
            )
            return OutOfMemory(needed, available)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """A program for absent devices cannot be written to the cache of compiled programs, which then warns."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)


def program_text(compiled: Any) -> str:
    """The compiled program as text; UserError where libtpu writes what this JAX cannot read."""
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        version = importlib.metadata.version("libtpu")
        raise UserError(
            f"libtpu {version} does not go with jax {jax.__version__}: pip install 'jax[tpu]=={jax.__version__}' "
            f"({str(error).splitlines()[0]})"
        ) from None


def memory_of(compiled: Any) -> Memory:
    """What one chip holds while the program runs."""
    stats = compiled.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def attention_backend(config: Config, mesh: Mesh) -> str:
    """Name of the attention back end that a training step takes on the devices of the mesh."""
    from valle_jax.model import masks
    from valle_jax.model.attention import select
    from valle_jax.model.embedding import compute_dtype

    model, length = config.model, config.data.row_length
    chosen = []

    def choose(segment, kind):
        interval = (
            masks.full(segment)
            if model.stage == "nar"
            else masks.causal(segment, kind, bidirectional_text=model.text_attention == "bidirectional")
        )
        q = jax.ShapeDtypeStruct((1, length, model.n_heads, model.d_model // model.n_heads), compute_dtype(model))
        chosen.append(select(model.attention, q, q, interval).name)
        return segment

    row = jax.ShapeDtypeStruct((1, length), jnp.int32)
    with jax.set_mesh(mesh):
        jax.eval_shape(choose, row, row)
    return chosen[0]
