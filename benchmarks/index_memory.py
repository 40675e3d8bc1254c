"""Memory that training holds per utterance of the index, and the speed of the loader.

Limits: peak resident memory grows by at most 40 bytes per utterance between 100,000 and 1,000,000 utterances, and the
loader gives at least 50,000 acoustic frames/s, 20 times what training on two CPU cores takes (about 2,500).

python benchmarks/index_memory.py [--entries 100000 1000000] [--stage ar] [--batches 400]

The dataset is synthetic: one shard of 256 utterances of LibriSpeech-like lengths and random codes, under as many names
as the number of utterances asks for. It is opened, planned and read as training does, each size in its own process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.config import Config
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT
from valle_jax.data.dataset import Dataset, DatasetInfo, ShardWriter
from valle_jax.data.pipeline import TrainBatches
from valle_jax.data.schema import Utterance
from valle_jax.data.shard import index_path, shard_path
from valle_jax.text.vocabulary import Vocabulary

LIMIT_BYTES = 40
LIMIT_FRAMES_PER_SECOND = 50_000
SHARD_UTTERANCES = 256
CODEC = CodecInfo("mel_rvq", 24_000, 75.0, 8, 1024, "0" * 16)


def write_dataset(folder: pathlib.Path, entries: int, seed: int = 0) -> int:
    """Writes a dataset of about so many utterances; returns how many: whole shards."""
    random = np.random.default_rng(seed)
    vocabulary = Vocabulary.default()
    n_shards = entries // SHARD_UTTERANCES
    with ShardWriter(folder, 0, n_shards) as writer:
        for i in range(SHARD_UTTERANCES):
            seconds = random.triangular(11, 15, 17) if random.random() < 0.75 else random.uniform(1.5, 11.5)
            phonemes = random.integers(3, vocabulary.size, int(14 * seconds), dtype=np.int32)
            codes = random.integers(0, CODEC.codebook_size, (int(75 * seconds), CODEC.codebooks), dtype=np.uint16)
            writer.write(Utterance(f"u{i}", f"s{i // 100}", "en-us", "text", phonemes, codes, "random"), "train")
    for shard in range(1, n_shards):
        for path in (shard_path, index_path):
            os.link(path(folder, 0, n_shards), path(folder, shard, n_shards))
    DatasetInfo(CODEC, vocabulary, {"utterances": n_shards * SHARD_UTTERANCES}).save(folder)
    return n_shards * SHARD_UTTERANCES


def configuration(stage: str, workers: int = 0) -> Config:
    """Four rows of 2,560 tokens."""
    return Config().override({"model.stage": stage, "train.rows": 4, "data.workers": workers})


def peak_rss(folder: pathlib.Path, stage: str) -> int:
    """Bytes: opens and plans the dataset as training does, reads four batches, and tells this process's peak."""
    batches = TrainBatches([(Dataset.open(folder), 1.0)], configuration(stage), start_row=0, plan_dir=folder / "plans")
    for _ in itertools.islice(batches, 4):
        pass
    # The kernel counts in kilobytes, except that macOS counts in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
    parser.add_argument("--stage", choices=("ar", "nar"), default="ar")
    parser.add_argument("--batches", type=int, default=400)
    arguments = parser.parse_args()
    utterances, peaks = [], []
    # Spawned and used once: a forked or used process would start from the peak of what ran before.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for entries in arguments.entries:
            with tempfile.TemporaryDirectory() as folder:
                utterances.append(write_dataset(pathlib.Path(folder), entries))
                peaks.append(pool.apply(peak_rss, (pathlib.Path(folder), arguments.stage)))
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(pathlib.Path(folder), 10 * SHARD_UTTERANCES)
            speeds = {
                workers: round(loader_speed(pathlib.Path(folder), arguments.stage, workers, arguments.batches))
                for workers in (0, 2)
            }
    bytes_per_utterance = (peaks[1] - peaks[0]) / (utterances[1] - utterances[0])
    result = {
        "stage": arguments.stage,
        "utterances": utterances,
        "peak_rss_megabytes": [round(peak / 1e6, 1) for peak in peaks],
        "bytes_per_utterance": round(bytes_per_utterance, 1),
        "limit_bytes": LIMIT_BYTES,
        "loader_frames_per_second": {f"workers={workers}": speed for workers, speed in speeds.items()},
        "limit_frames_per_second": LIMIT_FRAMES_PER_SECOND,
    }
    print(json.dumps(result))
    sys.exit(bytes_per_utterance > LIMIT_BYTES)


if __name__ == "__main__":
    main()
