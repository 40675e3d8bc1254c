"""Where the time of a run goes, over all its starts: `goodput.json`.

Goodput is the share of the time since the first start that went into steps which were kept. The rest is start-up,
compilation, waiting for input, evaluation, checkpoints, audio samples, steps that were done again after a restart
(`repeated`), and the time in which no process ran (`down`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator

PHASES = ("train", "startup", "compile", "input", "evaluate", "checkpoint", "samples", "repeated", "down")


class Goodput:
    """Accounts of one run.

    At any moment one phase is open, and time runs on it; `step` and `phase` are also what a watchdog reports.

    Attributes:
      seconds: time by phase, finished phases only.
      step: the step that is being worked on.
      phase: what is being done.
      since: `time.monotonic()` of the last change of either.
    """

    def __init__(self, workdir: pathlib.Path, *, active: bool):
        """Starts with the phase `startup`; only the active process (of several, the first) reads and writes the file.

        Time since the last sign of life of the start before this one is `down`.
        """
        self._path = workdir / "goodput.json" if active else None
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._at_checkpoint: dict[int, float] = {}  # seconds of training up to a checkpoint
        self._starts = 1
        self.step, self.phase, self.since = 0, "startup", time.monotonic()
        self._last_input = self._last_total = 0.0
        if self._path is not None and self._path.exists():
            saved = json.loads(self._path.read_text(encoding="utf-8"))
            self.seconds |= saved["seconds"]
            self._at_checkpoint = {int(step): seconds for step, seconds in saved["at_checkpoint"].items()}
            self._starts = saved["starts"] + 1
            self.seconds["down"] += max(0.0, time.time() - saved["last_seen"])

    def resume(self, step: int) -> None:
        """The run goes on from the checkpoint of this step (0: none): what was trained behind it is repeated."""
        kept = self._at_checkpoint.get(step, 0.0)
        self.seconds["repeated"] += max(0.0, self.seconds["train"] - kept)
        self.seconds["train"] = kept
        self._at_checkpoint = {s: seconds for s, seconds in self._at_checkpoint.items() if s <= step}
        self.step = step

    def _switch(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[self.phase] += now - self.since
        self.phase, self.since = phase, now

    def work_on(self, step: int) -> None:
        """Steps begin, or the next one does."""
        self._switch("train")
        self.step = step

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Time inside counts for this phase, then again for the one before."""
        before = self.phase
        self._switch(phase)
        try:
            yield
        finally:
            self._switch(before)

    def saved(self, step: int) -> None:
        """A checkpoint of this step is about to be written."""
        self._switch(self.phase)
        self._at_checkpoint[step] = self.seconds["train"]

    @property
    def goodput(self) -> float:
        """Kept training over all time; 0 at the start."""
        total = sum(self.seconds.values())
        return self.seconds["train"] / total if total else 0.0

    def take(self) -> dict[str, float]:
        """`goodput`, and `input_share`: of the time since the last call, the part that waited for a batch."""
        self._switch(self.phase)
        total = sum(self.seconds[phase] for phase in ("train", "input"))
        spent, waited = total - self._last_total, self.seconds["input"] - self._last_input
        self._last_total, self._last_input = total, self.seconds["input"]
        return {"goodput": self.goodput, "input_share": waited / spent if spent > 0 else 0.0}

    def write(self) -> None:
        """Writes the file, whole or not at all."""
        self._switch(self.phase)
        if self._path is None:
            return
        value = {
            "goodput": round(self.goodput, 4),
            "starts": self._starts,
            "step": self.step,
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "at_checkpoint": self._at_checkpoint,
            "last_seen": time.time(),
        }
        partial = self._path.with_suffix(".tmp")
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
