"""How fast training is on this machine: speed, use of the chip, memory, and what the input pipeline takes.

    python benchmarks/train_step.py --preset small --stage ar --set model.dtype=float32
    python benchmarks/train_step.py --preset base --stage nar --mesh data=4,fsdp=2 --set model.remat=dots

The data set is synthetic, as long utterances as LibriSpeech's, and read as training reads it. Limits: on two CPU cores
(the first command with --set train.rows=2) 2,400 acoustic frames/s; anywhere, a loader 20 times as fast as the step.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import resource
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from synthetic import write_dataset

from valle_jax.config import Config, Stage, parse_settings
from valle_jax.configs import get_preset
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT
from valle_jax.data.dataset import Dataset
from valle_jax.data.pipeline import TrainBatches
from valle_jax.model import build
from valle_jax.model.embedding import compute_dtype
from valle_jax.parallel.chips import peak_flops
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh, parse_mesh
from valle_jax.train.loop import resolve
from valle_jax.train.metrics import model_flops
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state
from valle_jax.train.step import jit_train_step


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Times training steps of a preset on synthetic speech."""

    preset: str = "small"
    """Preset."""
    stage: Stage = "ar"
    """Which decoder."""
    set: tuple[str, ...] = ()
    """Configuration overrides, key=value."""
    mesh: str | None = None
    """Mesh, such as data=4,fsdp=2; default: all devices on data."""
    steps: int = 10
    """Timed steps, after three that warm up."""

    def run(self) -> None:
        """Prints one line of JSON."""
        mesh = make_mesh(parse_mesh(self.mesh) if self.mesh else None)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_dataset(folder, 2048, 512)
            datasets = [(Dataset.open(folder), 1.0)]
            config = resolve(get_preset(self.preset, self.stage).override(parse_settings(self.set)), datasets, mesh)
            result = self.train(config, datasets, mesh)
            loader = loader_speed(config, datasets)
        result["loader_frames_per_second"] = round(loader)
        result["loader_over_step"] = round(loader / result["frames_per_second"], 1)
        print(json.dumps(result))

    def train(self, config: Config, datasets: list[tuple[Dataset, float]], mesh: jax.sharding.Mesh) -> dict:
        """Steps as `valle_jax.train.loop` takes them: numbers are read when the next step is on its way."""
        decoder = build(config.model)
        optimizer = make_optimizer(config.optimizer, decoder.axes)
        state = init_state(decoder, optimizer, mesh, config.train.seed, ema=config.optimizer.ema_decay > 0)
        step = jit_train_step(config, decoder, optimizer, mesh)
        key = jax.random.key(config.train.seed)
        rows = HostRows.of(mesh, config.train.rows)
        batches = iter(TrainBatches(datasets, config, start_row=0, local_rows=rows.local.tolist(), plan_dir=None))
        unread, read, waited, done = None, [], [], [time.perf_counter()]
        with jax.set_mesh(mesh):
            for _ in range(4 + self.steps):  # the last one is only on its way
                start = time.perf_counter()
                batch = rows.place(next(batches))
                waited.append(time.perf_counter() - start)
                state, metrics = step(state, batch, key)
                if unread is not None:
                    read.append(jax.device_get(unread))
                    done.append(time.perf_counter())
                unread = metrics
        jax.block_until_ready(state)
        seconds = float(np.median(np.diff(done)[-self.steps :]))
        timed = read[-self.steps :]
        frames = float(np.mean([metrics["frames"] for metrics in timed]))
        fill = float(np.mean([metrics["fill"] for metrics in timed]))
        tokens = fill * config.train.rows * config.data.row_length
        kind = jax.devices()[0].device_kind
        flops_per_second = model_flops(decoder, tokens) / seconds / mesh.size
        peak = peak_flops(kind)
        return {
            "device": kind,
            "devices": mesh.size,
            "stage": self.stage,
            "parameters": decoder.n_parameters,
            "rows": config.train.rows,
            "fill": round(fill, 4),
            "milliseconds_per_step": round(1000 * seconds, 1),
            "frames_per_second": round(frames / seconds),
            "tokens_per_second": round(tokens / seconds),
            "teraflops_per_second": round(flops_per_second / 1e12, 3),
            "mfu": None if peak is None else round(flops_per_second / peak, 4),
            "share_of_matmul": round(flops_per_second * mesh.size / matmul_flops(mesh, compute_dtype(config.model)), 4),
            **peak_memory(),
            "input_share": round(float(np.median(waited[-self.steps :])) / seconds, 5),
            "compile_seconds": round(done[1] - done[0], 1),
            "loss": round(float(timed[-1]["loss"]), 4),
        }


def matmul_flops(mesh: jax.sharding.Mesh, dtype: jnp.dtype, size: int = 4096) -> float:
    """FLOP/s of all devices together in a plain matrix product: what the chip's peak is worth here and now."""
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    left = jax.device_put(jnp.ones((mesh.size, size, size), dtype), sharding)
    product = jax.jit(lambda x: jnp.einsum("nij,njk->nik", x, x), out_shardings=sharding)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(product(left))
        seconds.append(time.perf_counter() - start)
    return mesh.size * 2 * size**3 / min(seconds)


def peak_memory() -> dict[str, int]:
    """Of the first device where it counts; else of this process, compilation included."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return {"peak_bytes_of_device": stats["peak_bytes_in_use"]}
    # The kernel counts in kilobytes, except that macOS counts in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_bytes_of_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def loader_speed(config: Config, datasets: list[tuple[Dataset, float]], batches: int = 50) -> float:
    """Acoustic frames/s of the loader alone, after the batches that were read ahead."""
    stream = iter(TrainBatches(datasets, config, start_row=0, plan_dir=None))
    for _ in range(10):
        next(stream)
    start = time.perf_counter()
    taken = list(itertools.islice(stream, batches))
    seconds = time.perf_counter() - start
    return sum(int(np.isin(batch["kind"], (KIND_ACOUSTIC, KIND_PROMPT)).sum()) for batch in taken) / seconds


if __name__ == "__main__":
    tyro.cli(Benchmark).run()
