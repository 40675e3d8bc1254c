"""Bytes that a compiled program moves to and from a chip's main memory."""

from __future__ import annotations

from valle_jax.plan.hlo import Array, Instruction, Module

# These move nothing, or what they move is counted where it starts or inside of them.
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "partition-id",
        "replica-id",
        "opt-barrier",
        "copy-done",
        "all-gather-done",
        "all-reduce-done",
        "collective-permute-done",
        "async-done",
        "slice-done",
    ]
)


def hbm_bytes(module: Module) -> float:
    """Reads and writes of main memory by one chip in one step, loops run as often as they run.

    Every instruction reads its operands and writes its results once; of an array from which it takes a slice, or of
    which it updates one, only the slice. What lies in memory on the chip is free. A kernel that reads a block more
    than once is counted as reading it once, so this is a lower bound.
    """
    total = 0.0
    for name in module.sequential():
        instructions = module.computations[name]
        total += module.runs[name] * sum(_moved(i, instructions, module) for i in instructions.values())
    return total


def _in_memory(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.space == 0)


def _moved(instruction: Instruction, around: dict[str, Instruction], module: Module) -> float:
    if instruction.opcode in _FREE:
        return 0.0
    if instruction.opcode == "dynamic-slice":
        return _in_memory(instruction.arrays) * 2
    if instruction.opcode == "dynamic-update-slice":
        return _in_memory(around[instruction.operands[1]].arrays) * 2
    operands = [around[name].arrays for name in instruction.operands]
    if instruction.opcode in ("copy-start", "slice-start"):
        # Named in the type are (copy, source, flag) or ((source), slice, flag); a slice is read as far as it is kept.
        made = instruction.arrays[1 if instruction.opcode == "slice-start" else 0]
        return (made.bytes if operands[0][0].space == 0 else 0.0) + _in_memory((made,))
    if instruction.opcode == "custom-call" and not instruction.operands:
        return 0.0  # reserves memory
    if instruction.opcode != "fusion":
        return sum(map(_in_memory, operands)) + _in_memory(instruction.arrays)
    return _fusion(instruction, operands, module.computations[instruction.called[0]])


def _fusion(fusion: Instruction, operands: list[tuple[Array, ...]], inside: dict[str, Instruction]) -> float:
    """Reads and writes of a fusion, which may touch only slices of what it is given."""
    updates = {i.name: i for i in inside.values() if i.opcode == "dynamic-update-slice"}
    read = 0.0
    for parameter in inside.values():
        if parameter.opcode != "parameter":
            continue
        whole = _in_memory(operands[int(parameter.arguments)])
        users = [i for i in inside.values() if parameter.name in i.operands]
        read += min(whole, sum(_read_by(user, parameter.name, whole) for user in users))
    written = _in_memory(fusion.arrays)
    for update in updates.values():
        slice_bytes = sum(array.bytes for array in inside[update.operands[1]].arrays)
        whole = sum(array.bytes for array in update.arrays)
        in_place = any(array.shape == update.arrays[0].shape and array.space == 0 for array in fusion.arrays)
        written -= max(whole - slice_bytes, 0.0) if in_place else 0.0
    return read + max(written, 0.0)


def _read_by(user: Instruction, name: str, whole: float) -> float:
    if user.opcode == "dynamic-slice":
        return sum(array.bytes for array in user.arrays)
    if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        return 0.0
    return whole
