"""A trace of a few steps, on demand."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from valle_jax.errors import UserError


def parse_steps(text: str) -> range:
    """`"10:15"` as the steps 10, 11, 12, 13, 14; UserError for anything else."""
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and 0 < int(first) < int(end)):
        raise UserError(f"--profile-steps {text!r} is not of the form FIRST:END with 0 < FIRST < END")
    return range(int(first), int(end))


class Profiler:
    """Traces the steps of a range into a folder that TensorBoard's profile plug-in, XProf and Perfetto read."""

    def __init__(self, folder: pathlib.Path, steps: range | None):
        self._folder, self._steps, self._tracing = folder, steps or range(0), False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Starts or ends the trace where this step is the first of the range, or the first behind it."""
        if step in self._steps and not self._tracing:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        elif step not in self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
