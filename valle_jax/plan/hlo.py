"""Reading a compiled program's text: instructions, and how often each runs.

XLA's own cost analysis counts the body of a loop once. Here every computation gets the number of times that it runs:
the product of the trip counts of the loops around it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

_DTYPE_BITS = re.compile(r"[a-z]+(\d+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(ROOT )?%?[\w.\-]+ = ")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result. `space` 0 is the device's main memory, others are on the chip."""

    shape: tuple[int, ...]
    bytes: float
    space: int


def parse_arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a type such as `f32[8,128]{1,0:T(8,128)S(1)}` or of a tuple of such."""
    arrays = []
    for dtype, dims, layout in _ARRAY.findall(text):
        shape = tuple(map(int, dims.split(","))) if dims else ()
        bits = _DTYPE_BITS.match(dtype)
        size = 1.0 if dtype == "pred" else int(bits[1]) / 8 if bits else 0.0
        space = re.search(r"S\((\d+)\)", layout)
        arrays.append(Array(shape, math.prod(shape) * size, int(space[1]) if space else 0))
    return tuple(arrays)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `operands` are names in the same computation, `attributes` the rest of the line."""

    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str  # the operands as they stand there: for a parameter its number, for a constant its value

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Its results."""
        return parse_arrays(self.type)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return names


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def _parse_instruction(line: str) -> Instruction:
    left, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    opens = right.index("(", end)
    closes = _closing(right, opens)
    arguments = right[opens + 1 : closes]
    return Instruction(
        name=left.lstrip("%"),
        opcode=right[end:opens].strip(),
        type=right[:end],
        operands=tuple(_NAME.findall(arguments)),
        attributes=right[closes + 1 :],
        arguments=arguments,
    )


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: computations by name, in an order in which callees come before their callers.

    Attributes:
      computations: instructions by name, for each computation; its last one is the result.
      entry: where the program starts.
      runs: how often each computation runs.
      unknown_loops: names of the loops whose trip count the program does not tell.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    runs: dict[str, float]
    unknown_loops: tuple[str, ...]

    def sequential(self) -> list[str]:
        """Computations whose instructions are steps of the program: the entry, loop bodies, branches.

        Others are inside of a fused or called instruction.
        """
        found = [self.entry]
        for name in found:
            for instruction in self.computations[name].values():
                if instruction.opcode in ("while", "conditional", "call"):
                    found += [called for called in instruction.called if called not in found]
        return found


def parse_module(text: str, unknown_trips: float = 1) -> Module:
    """Reads `compiled.as_text()`; loops whose trip count is not in it run `unknown_trips` times."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] | None = None
    entry = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line.rstrip() == "}":
            current = None
        elif current is not None and _INSTRUCTION.match(line):  # kernels' attributes may go on over several lines
            instruction = _parse_instruction(line)
            current[instruction.name] = instruction
    runs: dict[str, float] = dict.fromkeys(computations, 0.0)
    runs[entry] = 1.0
    unknown = []
    for name in reversed(computations):
        for instruction in computations[name].values():
            times = 1.0
            if instruction.opcode == "while":
                trips = _trip_count(instruction, computations)
                if trips is None:
                    unknown.append(instruction.name)
                times = unknown_trips if trips is None else trips
            for called in instruction.called:
                runs[called] += runs[name] * times
    return Module(computations, entry, runs, tuple(unknown))


def _trip_count(loop: Instruction, computations: dict[str, dict[str, Instruction]]) -> int | None:
    """What XLA noted, else the constant against which the loop's condition compares a counter that starts at 0."""
    known = _KNOWN_TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
    assert condition is not None, f"{loop.name} is a loop without a condition"
    instructions = computations[condition[1]]
    result = list(instructions.values())[-1]
    if result.opcode != "compare" or "direction=LT" not in result.attributes:
        return None
    constants = [instructions[name] for name in result.operands if instructions[name].opcode == "constant"]
    limits = [constant for constant in constants if constant.type.startswith(("s", "u"))]  # counters are integers
    return int(limits[0].arguments) if len(limits) == 1 else None
