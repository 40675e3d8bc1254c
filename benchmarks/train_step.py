"""How fast one training step is on this machine: frames/s without padding, tokens/s, milliseconds per step.

    python benchmarks/train_step.py --preset small --stage ar --set model.dtype=float32

The rows are synthetic, packed from utterances as long as LibriSpeech's. Limit (two CPU cores, the command above):
at least 2,400 acoustic frames/s.
"""

from __future__ import annotations

import dataclasses
import json
import time

import jax
import numpy as np
import tyro

from valle_jax.config import Config, Stage, parse_settings
from valle_jax.configs import get_preset
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, KIND_TEXT, NO_TARGET
from valle_jax.model import build
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh, parse_mesh
from valle_jax.train.metrics import model_flops, peak_flops
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state
from valle_jax.train.step import jit_train_step

FRAMES_PER_SECOND = 75
PHONEMES_PER_SECOND = 14.0
MAX_PROMPT_FRAMES = 225


def utterance_seconds(count: int, rng: np.random.Generator) -> np.ndarray:
    """Durations like those of LibriSpeech's training sets: 12.3 s on average, most between 11 and 16, a tail to 2."""
    long = rng.normal(14.5, 1.2, count)
    short = rng.uniform(2.0, 13.0, count)
    return np.clip(np.where(rng.random(count) < 0.7, long, short), 1.5, 17.0)


def pack(rows: int, row_length: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """(phonemes, frames) of the utterances of each row, first-fit over enough utterances to fill the rows."""
    open_rows: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    free = np.full(rows, row_length)
    for seconds in utterance_seconds(rows * row_length // 200, rng):
        item = int(seconds * PHONEMES_PER_SECOND) + 1, int(seconds * FRAMES_PER_SECOND)
        fits = np.flatnonzero(free >= sum(item))
        if len(fits):
            open_rows[fits[0]].append(item)
            free[fits[0]] -= sum(item)
    return open_rows


def random_batch(config: Config, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch of packed rows of random ids, as `valle_jax.data.batch` describes it."""
    model, shape = config.model, (config.train.rows, config.data.row_length)
    batch = {name: np.zeros(shape, np.int32) for name in ("token", "kind", "segment", "position")}
    batch["target"] = np.full(shape, NO_TARGET, np.int32)
    codes = rng.integers(0, model.codebook_size, (*shape, model.codebooks), dtype=np.int32)
    for row, items in enumerate(pack(*shape, rng)):
        start = 0
        for segment, (phonemes, frames) in enumerate(items, start=1):
            text, audio = slice(start, start + phonemes), slice(start + phonemes, start + phonemes + frames)
            batch["token"][row, text] = rng.integers(0, model.n_symbols, phonemes)
            batch["kind"][row, text] = KIND_TEXT
            batch["kind"][row, audio] = KIND_ACOUSTIC
            batch["position"][row, text], batch["position"][row, audio] = np.arange(phonemes), np.arange(frames)
            batch["segment"][row, start : audio.stop] = segment
            if model.stage == "ar":
                batch["token"][row, audio] = codes[row, audio, 0]
                batch["target"][row, audio.start - 1 : audio.stop - 1] = codes[row, audio, 0]
                batch["target"][row, audio.stop - 1] = model.codebook_size
            else:
                prompt = rng.integers(0, min(MAX_PROMPT_FRAMES, frames))
                batch["kind"][row, audio.start : audio.start + prompt] = KIND_PROMPT
                batch["target"][row, audio.start + prompt : audio.stop] = codes[
                    row, audio.start + prompt : audio.stop, 1
                ]
            start = audio.stop
    if model.stage == "nar":
        stage = rng.integers(1, model.codebooks, shape[0], dtype=np.int32)
        batch |= {"codes": codes, "stage": stage}
    return batch


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Time training steps of a preset on synthetic rows."""

    preset: str = "small"
    """Preset."""
    stage: Stage = "ar"
    """Which decoder."""
    set: tuple[str, ...] = ()
    """Configuration overrides, key=value."""
    mesh: str | None = None
    """Mesh, such as data=4,fsdp=2; default: all devices on data."""
    steps: int = 10
    """Timed steps, after two that warm up."""

    def run(self) -> None:
        """Prints one line of JSON."""
        sizes = {"model.n_symbols": 200, "model.codebooks": 8, "model.codebook_size": 1024}
        config = get_preset(self.preset, self.stage).override(sizes).override(parse_settings(self.set))
        mesh = make_mesh(parse_mesh(self.mesh) if self.mesh else None)
        decoder = build(config.model)
        optimizer = make_optimizer(config.optimizer, decoder.axes)
        state = init_state(decoder, optimizer, mesh, config.train.seed, ema=config.optimizer.ema_decay > 0)
        step = jit_train_step(config, decoder, optimizer, mesh)
        key = jax.random.key(config.train.seed)
        seconds = []
        with jax.set_mesh(mesh):
            batch = HostRows.of(mesh, config.train.rows).place(random_batch(config, np.random.default_rng(0)))
            for _ in range(2 + self.steps):
                start = time.perf_counter()
                state, metrics = jax.block_until_ready(step(state, batch, key))
                seconds.append(time.perf_counter() - start)
        median = float(np.median(seconds[2:]))
        tokens = float(metrics["fill"]) * config.train.rows * config.data.row_length
        result = {
            "device": jax.devices()[0].device_kind,
            "devices": mesh.size,
            "stage": self.stage,
            "parameters": decoder.n_parameters,
            "milliseconds_per_step": round(1000 * median, 1),
            "frames_per_second": round(float(metrics["frames"]) / median),
            "tokens_per_second": round(tokens / median),
            "fill": round(float(metrics["fill"]), 4),
            "compile_seconds": round(seconds[0], 1),
            "loss": float(metrics["loss"]),
        }
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak:
            result["mfu"] = round(model_flops(decoder, tokens) / median / (peak * mesh.size), 4)
        print(json.dumps(result))


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
