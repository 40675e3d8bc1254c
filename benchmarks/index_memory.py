"""Memory that training holds per utterance of the index, the time until its first batch, and the speed of the loader.

Limits: peak resident memory grows by at most 40 bytes per utterance between 100,000 and 1,000,000 utterances, and the
loader gives at least 50,000 acoustic frames/s, 20 times what training on two CPU cores takes (about 2,500).

    python benchmarks/index_memory.py [--entries 100000 1000000] [--shard-utterances 256] [--stage ar] [--batches 400]
    python benchmarks/index_memory.py --entries 1000000 14000000 --shard-utterances 4096     # 60,000 hours

The dataset is synthetic: one shard of utterances of LibriSpeech-like lengths and random codes, under as many names as
the number of utterances asks for. It is opened, planned and read as training does, each size in its own process;
`again` is a second start, which finds the plan that the first one left.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np
from synthetic import write_dataset

from valle_jax.config import Config
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT
from valle_jax.data.dataset import Dataset
from valle_jax.data.pipeline import TrainBatches

LIMIT_BYTES = 40
LIMIT_FRAMES_PER_SECOND = 50_000


def configuration(stage: str, workers: int = 0) -> Config:
    """Four rows of 2,560 tokens."""
    return Config().override({"model.stage": stage, "train.rows": 4, "data.workers": workers})


def start_up(folder: pathlib.Path, stage: str) -> dict[str, float]:
    """Opens and plans the dataset as training does and reads four batches: seconds, and this process's peak memory.

    Processor time is what the start takes on a machine with nothing else to do, except for slow disks.
    """
    start, worked = time.perf_counter(), time.process_time()
    dataset = Dataset.open(folder)
    opened = time.perf_counter()
    batches = TrainBatches([(dataset, 1.0)], configuration(stage), start_row=0, plan_dir=folder / "plans")
    planned = time.perf_counter()
    for _ in itertools.islice(batches, 4):
        pass
    read = time.perf_counter()
    # The kernel counts in kilobytes, except that macOS counts in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "open_seconds": round(opened - start, 2),
        "plan_seconds": round(planned - opened, 2),
        "batches_seconds": round(read - planned, 2),
        "start_up_seconds": round(read - start, 2),
        "start_up_cpu_seconds": round(time.process_time() - worked, 2),
        "peak_rss_megabytes": round(peak / 1e6, 1),
    }


def loader_speed(folder: pathlib.Path, stage: str, workers: int, batches: int) -> float:
    """Acoustic frames/s of the loader, padding not counted, after the batches that were read ahead."""
    stream = iter(
        TrainBatches(
            [(Dataset.open(folder), 1.0)], configuration(stage, workers), start_row=0, plan_dir=folder / "plans"
        )
    )
    for _ in range(20):
        next(stream)
    start = time.perf_counter()
    taken = list(itertools.islice(stream, batches))
    seconds = time.perf_counter() - start
    stream.close()
    return sum(int(np.isin(batch["kind"], (KIND_ACOUSTIC, KIND_PROMPT)).sum()) for batch in taken) / seconds


def main() -> None:
    """Prints one line of JSON; exit 1 where the memory is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs=2, default=[100_000, 1_000_000])
    parser.add_argument("--shard-utterances", type=int, default=256)
    parser.add_argument("--stage", choices=("ar", "nar"), default="ar")
    parser.add_argument("--batches", type=int, default=400)
    arguments = parser.parse_args()
    sizes: list[dict] = []
    # Spawned and used once: a forked or used process would start from the peak of what ran before.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for entries in arguments.entries:
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                utterances = write_dataset(folder, entries, arguments.shard_utterances)
                first, again = (pool.apply(start_up, (folder, arguments.stage)) for _ in range(2))
                bytes_on_disk = sum(path.stat().st_size for path in folder.glob("*.index.npz"))
                sizes.append({"utterances": utterances, "index_bytes": bytes_on_disk, **first, "again": again})
        with tempfile.TemporaryDirectory() as name:
            write_dataset(pathlib.Path(name), 2560, 256)
            speeds = {
                workers: round(loader_speed(pathlib.Path(name), arguments.stage, workers, arguments.batches))
                for workers in (0, 2)
            }
    growth = 1e6 * (sizes[1]["peak_rss_megabytes"] - sizes[0]["peak_rss_megabytes"])
    bytes_per_utterance = growth / (sizes[1]["utterances"] - sizes[0]["utterances"])
    result = {
        "stage": arguments.stage,
        "sizes": sizes,
        "bytes_per_utterance": round(bytes_per_utterance, 1),
        "limit_bytes": LIMIT_BYTES,
        "loader_frames_per_second": {f"workers={workers}": speed for workers, speed in speeds.items()},
        "limit_frames_per_second": LIMIT_FRAMES_PER_SECOND,
    }
    print(json.dumps(result))
    sys.exit(bytes_per_utterance > LIMIT_BYTES)


if __name__ == "__main__":
    main()
