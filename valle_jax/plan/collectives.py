"""What a compiled program sends between chips, by kind and mesh axes."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
from jax.sharding import Mesh

from valle_jax.plan.hlo import Instruction, Module

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_CHANNEL = re.compile(r"channel_id=(\d+)")
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=@?mesh\[([^\]]*)\](?:, device_ids=\([^)]*\))? ?\{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{\{(\d+),(\d+)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of a program, with all its runs in one step.

    Attributes:
      kind: one of `KINDS`.
      axes: mesh axes over which its groups reach, such as `data` or `data+fsdp`.
      group: chips that take part together.
      slices: slices on which those are.
      runs: how often per step.
      payload_bytes: of the whole array, on one chip and in one run: what an all-gather yields, what the others take.
    """

    kind: str
    axes: str
    group: int
    slices: int
    runs: float
    payload_bytes: float

    @property
    def sent_bytes(self) -> float:
        """Bytes that each chip sends per step in a ring, the algorithm that is best for large arrays."""
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0, "collective-broadcast": 1.0}.get(self.kind, share)
        return self.runs * self.payload_bytes * factor

    @property
    def network_bytes(self) -> float:
        """Of these, what each chip sends to other slices: its part of what is left once its slice has been reduced."""
        if self.slices == 1:
            return 0.0
        if self.kind == "collective-permute":
            return self.runs * self.payload_bytes
        share = (self.slices - 1) / self.slices * (2 if self.kind == "all-reduce" else 1)
        return self.runs * self.payload_bytes * share / (self.group / self.slices)


def find_collectives(module: Module, mesh: Mesh) -> list[Collective]:
    """The collectives of a program compiled for `mesh`, equal ones put together, the greatest senders first.

    A TPU program spreads an asynchronous collective over several fused instructions, all on one channel; it is counted
    once. A reduce-scatter that the compiler writes as an all-reduce of which each chip takes its part is one.
    """
    seen: set[tuple[str, float]] = set()
    totals: dict[tuple[str, str, int, int, float], float] = {}
    for name, instructions in module.computations.items():
        runs = module.runs[name]
        for instruction in instructions.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS or not runs:
                continue
            channel = _CHANNEL.search(instruction.attributes)
            if channel and (channel[1], runs) in seen:
                continue
            if channel:
                seen.add((channel[1], runs))
            members = _members(instruction, mesh.size)
            if len(members) == 1:
                continue
            bytes_in = sum(array.bytes for o in instruction.operands for array in instructions[o].arrays)
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            payload = bytes_in * (len(members) if kind == "all-gather" else 1)
            axes, slices = _reach(members, mesh)
            key = (kind, axes, len(members), slices, payload)
            totals[key] = totals.get(key, 0.0) + runs
    collectives = [Collective(*key[:4], runs=runs, payload_bytes=key[4]) for key, runs in totals.items()]
    return sorted(collectives, key=lambda c: -c.sent_bytes)


def _members(instruction: Instruction, devices: int) -> list[int]:
    """The first group of partitions that the operation joins; of a permutation the first pair."""
    attributes = instruction.attributes
    if pair := _PAIRS.search(attributes):
        return [int(pair[1]), int(pair[2])]
    if groups := _GROUPS.search(attributes):
        return [int(part) for part in groups[1].split(",")]
    if iota := _IOTA.search(attributes):
        shape = tuple(map(int, iota[3].split(",")))
        order = tuple(map(int, iota[4].split(","))) if iota[4] else tuple(range(len(shape)))
        ids = np.arange(devices).reshape(shape).transpose(order)
        return ids.reshape(int(iota[1]), int(iota[2]))[0].tolist()
    if named := _MESH.search(attributes):
        return _mesh_members(named[1], named[2])
    return list(range(devices))


def _mesh_members(mesh: str, axes: str) -> list[int]:
    """Of `'a'=64,'b'=4` the axes `'b'`: partitions 0 to 3; `'a':(2)4` is a part of an axis, behind 2 of it."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    strides = dict(zip(sizes, [int(np.prod(list(sizes.values())[i + 1 :])) for i in range(len(sizes))], strict=True))
    members = np.zeros(1, np.int64)
    for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        size = int(part) if part else sizes[name]
        stride = strides[name] * (sizes[name] // (int(before) * size) if part else 1)
        members = (members[:, None] + stride * np.arange(size)).reshape(-1)
    return members.tolist()


def _reach(members: list[int], mesh: Mesh) -> tuple[str, int]:
    """Mesh axes along which the members differ, and on how many slices they are."""
    places = np.array(np.unravel_index(members, mesh.devices.shape))
    axes = [name for name, place in zip(mesh.axis_names, places, strict=True) if len(set(place.tolist())) > 1]
    slices = {getattr(mesh.devices.flat[member], "slice_index", None) for member in members}
    return "+".join(axes), len(slices)
