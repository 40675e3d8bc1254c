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
_CHAIN = re.compile(r'chain_id="(\d+)"')
_HOST_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_LISTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH = re.compile(r"replica_groups=@?mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
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
        between = dataclasses.replace(
            self, group=self.slices, payload_bytes=self.payload_bytes * self.slices / self.group
        )
        return 0.0 if self.slices == 1 else between.sent_bytes


def find_collectives(module: Module, mesh: Mesh) -> list[Collective]:
    """The collectives of a program compiled for `mesh`, equal ones put together, the greatest senders first.

    A TPU program spreads an asynchronous collective over a chain of fused instructions; it is counted once. A
    reduce-scatter that the compiler writes as an all-reduce of which each chip takes its part is one. What goes between
    slices is handed to the host, by a `send` that says of what it is a part.
    """
    seen: set[tuple[str, str]] = set()
    totals: dict[tuple[str, str, int, int, float], float] = {}
    n_slices = _reach(list(range(mesh.size)), mesh)[1]
    for name, instructions in module.computations.items():
        runs = module.runs[name]
        for instruction in instructions.values() if runs else ():
            bytes_in = sum(array.bytes for o in instruction.operands for array in instructions[o].arrays)
            transfer = _HOST_TRANSFER.search(instruction.attributes) if instruction.opcode == "send" else None
            if transfer:
                kind = transfer[1].lower().replace("_", "-")
                axes, group, slices = "data", n_slices, n_slices  # the one axis that spans slices, see `make_mesh`
            else:
                kind = instruction.opcode.removesuffix("-start")
                if kind not in KINDS or _is_repeated(instruction, seen):
                    continue
                members = _members(instruction, mesh.size)
                (axes, slices), group = _reach(members, mesh), len(members)
            if group == 1:
                continue
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            payload = bytes_in * (group if kind == "all-gather" else 1)
            key = (kind, axes, group, slices, payload)
            totals[key] = totals.get(key, 0.0) + runs
    collectives = [Collective(*key[:4], runs=runs, payload_bytes=key[4]) for key, runs in totals.items()]
    return sorted(collectives, key=lambda c: -c.sent_bytes)


def _is_repeated(instruction: Instruction, seen: set[tuple[str, str]]) -> bool:
    """Whether it is a later link of a chain, which it joins otherwise."""
    chain, channel = _CHAIN.search(instruction.attributes), _CHANNEL.search(instruction.attributes)
    if chain is None or channel is None:
        return False
    key = (chain[1], channel[1])
    if key in seen:
        return True
    seen.add(key)
    return False


def _members(instruction: Instruction, devices: int) -> list[int]:
    """The first group of partitions that the operation joins; of a permutation the first pair."""
    attributes = instruction.attributes
    if pair := _PAIRS.search(attributes):
        return [int(pair[1]), int(pair[2])]
    if groups := _GROUPS.search(attributes):
        return [int(part) for part in groups[1].split(",")]
    if listed := _LISTED.search(attributes):
        return _iota(listed[3]).reshape(int(listed[1]), int(listed[2]))[0].tolist()
    if named := _MESH.search(attributes):
        places = _mesh_places(named[1], named[3])
        order = _iota(named[2]) if named[2] else np.arange(devices)
        return order[places].tolist()
    assert "replica_groups={}" in attributes or "replica_groups" not in attributes, f"unknown groups: {attributes}"
    return list(range(devices))


def _iota(text: str) -> np.ndarray:
    """`[16,4]T(1,0)`: 0 to 63 as 16 x 4, transposed, one behind the other; or numbers as they stand there."""
    iota = _IOTA.fullmatch(text)
    if iota is None:
        return np.array([int(part) for part in text.split(",")])
    shape = [int(part) for part in iota[1].split(",")]
    order = [int(part) for part in iota[2].split(",")] if iota[2] else range(len(shape))
    return np.arange(np.prod(shape)).reshape(shape).transpose(list(order)).reshape(-1)


def _mesh_places(mesh: str, axes: str) -> np.ndarray:
    """Of `'a'=64,'b'=4` the axes `'b'`: places 0 to 3; `'a':(2)4` is a part of an axis, behind 2 of it."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    strides = dict(zip(sizes, [int(np.prod(list(sizes.values())[i + 1 :])) for i in range(len(sizes))], strict=True))
    places = np.zeros(1, np.int64)
    for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
        size = int(part) if part else sizes[name]
        stride = strides[name] * (sizes[name] // (int(before) * size) if part else 1)
        places = (places[:, None] + stride * np.arange(size)).reshape(-1)
    return places


def _reach(members: list[int], mesh: Mesh) -> tuple[str, int]:
    """Mesh axes along which the members differ, and on how many slices they are."""
    places = np.array(np.unravel_index(members, mesh.devices.shape))
    axes = [name for name, place in zip(mesh.axis_names, places, strict=True) if len(set(place.tolist())) > 1]
    slices = {getattr(mesh.devices.flat[member], "slice_index", None) for member in members}
    return "+".join(axes), len(slices)
