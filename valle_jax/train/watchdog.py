"""Ends a run that stands still, and says which host stands where."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import Any

from valle_jax.errors import EXIT_RESTART
from valle_jax.parallel import distributed
from valle_jax.train.goodput import Goodput


class Watchdog:
    """A thread that reports when neither step nor phase has changed for `seconds`, and then ends the process.

    Among several processes each one also puts up where it stands, so that the report names the one that is behind: the
    others wait for it inside a collective, from which no exception could wake them.
    """

    def __init__(self, goodput: Goodput, seconds: float):
        """`seconds` 0 switches it off."""
        self._goodput, self._seconds = goodput, seconds
        self._period = min(10.0, seconds / 4)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, daemon=True)]
        if distributed.is_shared():
            self._threads.append(threading.Thread(target=self._put_up, daemon=True))

    def __enter__(self) -> Watchdog:
        if self._seconds:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()

    def _put_up(self) -> None:
        while True:  # at once, so that the report also has one that hangs before a period is over
            distributed.put_up(f"{self._goodput.step} {self._goodput.phase} {time.time():.0f}")
            if self._stop.wait(self._period):
                return

    def _watch(self) -> None:
        while not self._stop.wait(self._period):
            idle = time.monotonic() - self._goodput.since
            if idle > self._seconds:
                self._end(idle)

    def _end(self, idle: float) -> None:
        lines = [
            f"{distributed.describe_process()}: no progress for {idle:.0f} s at step {self._goodput.step}, "
            f"in phase {self._goodput.phase!r}; ending, start again to go on from the newest checkpoint"
        ]
        for process, text in distributed.read_board(timeout_seconds=self._period):
            step, phase, seen = text.split()
            silence = max(0.0, time.time() - int(seen))
            lines.append(f"  process {process}: step {step}, {phase}; last heard of {silence:.0f} s ago")
        main = sys._current_frames()[threading.main_thread().ident or 0]
        lines += ["where this one stands:", "".join(traceback.format_stack(main))]
        print("\n".join(lines), file=sys.stderr, flush=True)
        os._exit(EXIT_RESTART)
