"""Which mesh and which remat policy: estimates for all, compilation for the few best."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Literal

from tqdm import tqdm

from valle_jax.config import Config
from valle_jax.errors import UserError, WorkError
from valle_jax.parallel.mesh import AXES, make_mesh
from valle_jax.plan.estimate import Estimate, estimate
from valle_jax.plan.flops import Speech
from valle_jax.plan.report import gibibytes, mesh_text, milliseconds, table
from valle_jax.plan.topology import Topology
from valle_jax.plan.train_plan import TrainPlan, plan_training

REMATS: tuple[Literal["none", "dots", "full"], ...] = ("none", "dots", "full")
# Estimates of memory are rough: what is a little too large by them may yet fit.
_DOUBT = 1.25


@dataclasses.dataclass(frozen=True)
class Search:
    """Attributes:
    estimates: of all meshes and policies that divide, the fastest first.
    plans: of those that were compiled and fit, the fastest first.
    refused: of those that were compiled and do not fit.
    """

    estimates: tuple[Estimate, ...]
    plans: tuple[TrainPlan, ...]
    refused: tuple[TrainPlan, ...]


def mesh_shapes(chips: int) -> list[dict[str, int]]:
    """All ways to lay out that many chips as data x fsdp x tensor."""
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    return [
        dict(zip(AXES, (chips // (fsdp * tensor), fsdp, tensor), strict=True))
        for fsdp in divisors
        for tensor in divisors
        if chips % (fsdp * tensor) == 0
    ]


def rank(config: Config, topology: Topology, speech: Speech) -> list[Estimate]:
    """Estimates of all meshes over the whole topology and all remat policies, the fastest first.

    Meshes that do not divide model, rows or slices are left out; UserError where none is left.
    """
    if topology.chip is None:
        raise UserError(f"--search needs a chip whose speed is known, which {topology.name} is not")
    found = []
    reasons: list[str] = []
    for sizes in mesh_shapes(len(topology.devices)):
        try:
            mesh = make_mesh(sizes, topology.devices)
            for remat in REMATS:
                tried = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=remat))
                found.append(estimate(tried, mesh, topology.chip, speech))
        except UserError as error:
            reasons.append(str(error))
    if not found:
        raise UserError(f"no mesh over {topology.name} divides model and rows; the last one: {reasons[-1]}")
    return sorted(found, key=lambda e: e.roofline.seconds_without_overlap)


def _in_turn(estimates: list[Estimate]) -> list[Estimate]:
    """The best of one remat policy after the other, each with a mesh that has not had its turn as long as there is one.

    Of policies and of how the partitioner takes a mesh the estimates are least sure.
    """
    left = list(estimates)
    chosen: list[Estimate] = []
    while left:
        for remat in REMATS:
            seen = [e.mesh.shape for e in chosen]
            of_policy = [e for e in left if e.config.model.remat == remat]
            if of_policy:
                best = next((e for e in of_policy if e.mesh.shape not in seen), of_policy[0])
                chosen.append(best)
                left.remove(best)
    return chosen


def search(config: Config, topology: Topology, speech: Speech, *, candidates: int) -> Search:
    """Compiles the most promising ways until `candidates` fit, at most twice as many, and ranks them.

    They are ranked by the time in which nothing overlaps, where every cost counts.

    Raises:
      UserError: nothing divides.
      WorkError: nothing that was compiled fits.
    """
    estimates = rank(config, topology, speech)
    assert topology.chip is not None
    promising = [e for e in estimates if e.memory <= _DOUBT * topology.chip.hbm_bytes]
    # Where by estimate nothing fits, the smallest are the best hope.
    tried = _in_turn(promising or sorted(estimates, key=lambda e: e.memory))
    fitting: list[TrainPlan] = []
    refused: list[TrainPlan] = []
    with tqdm(total=candidates, desc="compile", unit="plan", file=sys.stderr) as bar:
        for chosen in tried[: 2 * candidates]:
            if len(fitting) == candidates:
                break
            plan = plan_training(chosen.config, topology, dict(chosen.mesh.shape), speech)
            (fitting if plan.fits else refused).append(plan)
            bar.update(plan.fits)
    if not fitting:
        raise WorkError(
            f"none of the {len(refused)} most promising plans fits {topology.name}: fewer rows, train.loss_chunk, "
            "train.accumulate or more chips"
        )

    def seconds(plan: TrainPlan) -> float:
        assert plan.roofline is not None
        return plan.roofline.seconds_without_overlap

    return Search(tuple(estimates), tuple(sorted(fitting, key=seconds)), tuple(refused))


def search_report(result: Search) -> str:
    """The ranking for people; the best plan is to be printed below it."""
    header = ("mesh", "remat", "memory", "no step faster", "nothing overlaps", "MFU", "bound by")
    parts = ["Compiled, the fastest first\n" + table([_compiled(plan) for plan in result.plans], header)]
    if result.refused:
        lines = [(mesh_text(plan.mesh), plan.config.model.remat) for plan in result.refused]
        parts.append("Compiled, but too large\n" + table(lines))
    names = {(mesh_text(plan.mesh), plan.config.model.remat) for plan in (*result.plans, *result.refused)}
    others = [line for line in map(_estimated, result.estimates) if line[:2] not in names]
    parts.append(f"By estimate only, the first of {len(others)}\n" + table(others[:8], header[:5]))
    return "\n\n".join(parts)


def _compiled(plan: TrainPlan) -> Sequence[str]:
    assert plan.memory is not None
    assert plan.roofline is not None
    fast, slow = plan.roofline.seconds, plan.roofline.seconds_without_overlap
    return (
        mesh_text(plan.mesh),
        plan.config.model.remat,
        gibibytes(plan.memory.peak),
        milliseconds(fast),
        milliseconds(slow),
        f"{plan.mfu_bound(slow):.0%} to {plan.mfu_bound(fast):.0%}",
        plan.roofline.bound_by,
    )


def _estimated(guess: Estimate) -> Sequence[str]:
    return (
        mesh_text(dict(guess.mesh.shape)),
        guess.config.model.remat,
        gibibytes(guess.memory),
        milliseconds(guess.roofline.seconds),
        milliseconds(guess.roofline.seconds_without_overlap),
    )
