"""What a training step will about need, without compiling it: to choose what is worth compiling."""

from __future__ import annotations

import dataclasses
import math

import jax
from jax.sharding import Mesh

from valle_jax.config import Config
from valle_jax.model import build
from valle_jax.parallel.chips import Chip
from valle_jax.parallel.sharding import check_divides
from valle_jax.plan.collectives import Collective
from valle_jax.plan.flops import Speech, train_flops
from valle_jax.plan.program import attention_backend
from valle_jax.plan.roofline import Roofline, roofline
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import abstract_state

# Bytes of main memory moved per token, layer and unit of width, by remat policy: what the paper's model compiles to for
# v5e, where most of it is activations in bfloat16 of 4,096 inner units to 1,024 of width.
_MOVED = {"none": 540.0, "dots": 245.0, "full": 215.0}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one way to run a step.

    Attributes:
      config: with the remat policy.
      mesh: of the topology's devices.
      memory: bytes of a chip.
      roofline: as `TrainPlan.roofline`.
    """

    config: Config
    mesh: Mesh
    memory: float
    roofline: Roofline


def estimate(config: Config, mesh: Mesh, chip: Chip, speech: Speech) -> Estimate:
    """Memory and roofline of a step from sizes alone; UserError where the mesh does not divide them."""
    decoder = build(config.model)
    model, train = config.model, config.train
    check_divides(mesh, decoder.axes, decoder.abstract_params, train.rows // train.accumulate)
    data, fsdp, tensor = (mesh.shape[axis] for axis in ("data", "fsdp", "tensor"))
    state = abstract_state(
        decoder, make_optimizer(config.optimizer, decoder.axes), mesh, ema=config.optimizer.ema_decay > 0
    )
    state_bytes, params_bytes = (
        sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (state, state.params)
    )
    tokens = train.rows * config.data.row_length / (data * fsdp)
    alive = tokens / train.accumulate
    D, F = model.d_model, model.d_ff / tensor
    kept = {"none": D * (3 / tensor + 8) + 3 * F, "dots": D * (3 / tensor + 3), "full": D}[model.remat]
    at_work = D * (14 + 6 / tensor) + 6 * F
    logits = 2.0 * (min(train.loss_chunk, config.data.row_length) / config.data.row_length or 1.0) * model.codebook_size
    logits *= model.codes_per_step
    activations = alive * (2 * (kept * model.n_layers + at_work) + 4 * logits)

    weights = 2.0 * decoder.n_parameters / tensor  # bfloat16, of one chip's part of every layer
    tensor_sums = {"none": 4, "dots": 5, "full": 6}[model.remat] * model.n_layers * train.accumulate
    slices = len({getattr(device, "slice_index", None) for device in mesh.devices.flat})
    collectives = [
        Collective("all-gather", "fsdp", fsdp, 1, 2 * train.accumulate, weights),
        Collective("reduce-scatter", "fsdp", fsdp, 1, train.accumulate, weights),
        Collective("all-reduce", "data", data, slices, train.accumulate, weights / fsdp),
        Collective("all-reduce", "tensor", tensor, 1, tensor_sums, 2.0 * alive * D),
    ]
    flops = train_flops(config, decoder, attention_backend(config, mesh), speech, tile=128)
    return Estimate(
        config=config,
        mesh=mesh,
        memory=state_bytes + params_bytes + activations,
        roofline=roofline(
            chip,
            flops=flops.computed / mesh.size,
            hbm_bytes=_MOVED[model.remat] * tokens * D * model.n_layers / tensor + 2 * state_bytes,
            collectives=collectives,
        ),
    )
