"""`metrics.jsonl` and TensorBoard: what a run writes about itself while it trains."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from valle_jax.model import Decoder
from valle_jax.parallel.chips import peak_flops


def model_flops(decoder: Decoder, tokens: float) -> float:
    """FLOPs of a forward and backward pass over this many tokens: 6 per parameter and token.

    Embedding look-ups cost nothing, the (tied) output projection does, so embeddings are left out and the projection
    counted once. Attention scores are left out, as they depend on the segments: the result is a lower bound.
    """
    config = decoder.config
    head = config.codes_per_step * (config.codebook_size + (config.stage == "ar")) * config.d_model
    blocks = decoder.abstract_params["transformer"]["blocks"]
    matrices = [blocks["w_qkv"], blocks["w_o"], blocks["mlp"]["w_in"], blocks["mlp"]["w_out"]]
    matrices += decoder.abstract_params.get("groups", {}).values()
    return 6.0 * tokens * (sum(leaf.size for leaf in matrices) + head)


def truncate(path: pathlib.Path, step: int) -> None:
    """Drops the lines behind `step` and a half-written one: what a killed run wrote after its last checkpoint."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["step"] > step:
            break
        kept.append(line + "\n")
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


class MetricsWriter:
    """Writes scalars to `metrics.jsonl` and TensorBoard; on all processes but the first it writes nothing."""

    def __init__(self, workdir: pathlib.Path, *, resume_step: int, active: bool):
        """Opens the files; lines behind `resume_step` are dropped from `metrics.jsonl` and hidden in TensorBoard."""
        self._file = self._board = None
        if active:
            path = workdir / "metrics.jsonl"
            truncate(path, resume_step)
            self._file = path.open("a", encoding="utf-8")
            # Imported where it is used: it imports torch wherever that is installed.
            from tensorboardX import SummaryWriter

            # The suffix keeps two starts within one second, after which a file is named, from sharing the file.
            self._board = SummaryWriter(
                str(workdir / "tensorboard"),
                purge_step=resume_step + 1,
                flush_secs=30,
                filename_suffix=f".from-{resume_step}",
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line, with `step` first; JSON knows no NaN, so a value that is not finite is written as null."""
        if self._file is None or self._board is None:
            return
        line = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate: int) -> None:
        """A player in TensorBoard; `samples` float32 [n] in [-1, 1]."""
        if self._board is not None:
            self._board.add_audio(name, samples[:, None], step, sample_rate=sample_rate)

    def flush(self) -> None:
        """Brings everything into the files."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flushes and closes both."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


class Throughput:
    """Counts work and the time it took, from one line of `metrics.jsonl` to the next."""

    def __init__(self, decoder: Decoder, devices: int):
        self._decoder = decoder
        peak = peak_flops(jax.devices()[0].device_kind)
        self._peak = None if peak is None else peak * devices
        self._compiling = True
        self._restart()

    def _restart(self) -> None:
        self._start, self._steps, self._frames, self._tokens = time.perf_counter(), 0, 0.0, 0.0

    def add(self, frames: float, tokens: float) -> None:
        """Adds a finished step. The first one, which was compiled in its time, starts the clock instead."""
        if self._compiling:
            self._compiling = False
            self._restart()
            return
        self._steps += 1
        self._frames += frames
        self._tokens += tokens

    def take(self) -> dict[str, float]:
        """Since the last call `frames_per_second`, `seconds_per_step` and, where the chip's peak is known, `mfu`.

        Without a step: {}.
        """
        seconds = time.perf_counter() - self._start
        values = {}
        if self._steps:
            values["frames_per_second"] = self._frames / seconds
            values["seconds_per_step"] = seconds / self._steps
            if self._peak is not None:
                values["mfu"] = model_flops(self._decoder, self._tokens) / seconds / self._peak
        self._restart()
        return values

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start
