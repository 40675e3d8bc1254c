"""Memory of `valle batch` against the number of jobs, each number in a process of its own.

    python benchmarks/batch_memory.py --jobs 1000 100000 1000000

Of the jobs listed, every other one is done already (its line stands in results.jsonl), the last ones are said by a
random model of 32 channels, and the others name a voice that is not there, so that they fail at once. So all of them
are read, checked for ids that stand twice, looked up among what is done, and sorted by the window, and half of them
get a line; only what the model does with a job is done for a few (the engine holds so many jobs as it has slots,
whatever their number). The limit: peak memory grows by at most 32 bytes a job between the first and the last number.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pathlib
import resource
import sys
import tempfile
import time
from typing import get_args

import jax
import numpy as np
import tyro

from valle_jax.codec import get_codec
from valle_jax.config import ModelConfig, Stage
from valle_jax.inference.batch import Batch, Settings
from valle_jax.inference.model_dir import ModelDir
from valle_jax.inference.synthesizer import Options, Synthesizer
from valle_jax.inference.voice import voice_path
from valle_jax.model import build
from valle_jax.text.vocabulary import Vocabulary

LIMIT_BYTES = 32
SLOTS = 4


@dataclasses.dataclass(frozen=True)
class BatchMemory:
    """Prints a line of JSON per number of jobs and one with the growth; exit 1 where that is over the limit."""

    jobs: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    """Numbers of jobs."""
    spoken: int = 16
    """Jobs that the model says."""

    def run(self) -> None:
        """Runs the benchmark."""
        sizes = []
        # Spawned and used once: a forked or used process would start from the peak of what ran before.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for count in self.jobs:
                with tempfile.TemporaryDirectory() as folder:
                    write(pathlib.Path(folder), count, self.spoken)
                    sizes.append({"jobs": count, **pool.apply(measure, (pathlib.Path(folder), count))})
                print(json.dumps(sizes[-1]), flush=True)
        growth = 1e6 * (sizes[-1]["peak_rss_megabytes"] - sizes[0]["peak_rss_megabytes"])
        per_job = growth / max(1, sizes[-1]["jobs"] - sizes[0]["jobs"])
        print(json.dumps({"bytes_per_job": round(per_job, 1), "limit_bytes": LIMIT_BYTES}))
        raise SystemExit(per_job > LIMIT_BYTES)


def write(folder: pathlib.Path, count: int, spoken: int) -> None:
    """jobs.jsonl, and out/results.jsonl as a run that was killed would have left it."""
    (folder / "out").mkdir()
    with open(folder / "jobs.jsonl", "w") as jobs, open(folder / "out" / "results.jsonl", "w") as results:
        for line in range(count):
            last = line >= count - spoken
            voice = "anna" if last else "nobody"
            jobs.write(json.dumps({"id": f"job-{line:09d}", "text": "one two", "voice": voice}) + "\n")
            if line % 2 and not last:
                record = {"line": line, "id": f"job-{line:09d}", "audio": f"audio/job-{line:09d}.wav", "frames": 75}
                results.write(json.dumps(record) + "\n")


def measure(folder: pathlib.Path, count: int) -> dict[str, float]:
    """Does the jobs as the verb does; memory of this process, and what became of the results."""
    tts = random_synthesizer()
    tone = 0.3 * np.sin(0.05 * np.arange(tts.codec.info.sample_rate))
    tts.voice(tone, "one two").save(voice_path("anna", folder))
    settings = Settings(Options(max_rate_ratio=1.2, batch_size=4, tries=1), SLOTS, 256, voices=str(folder))
    start = time.perf_counter()
    totals = Batch(tts, folder / "jobs.jsonl", folder / "out", settings).run()
    seconds = time.perf_counter() - start
    # The kernel counts in kilobytes, except that macOS counts in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open(folder / "out" / "results.jsonl") as results:
        lines = sorted(json.loads(text)["line"] for text in results)
    assert lines == list(range(count)), "a job is missing in results.jsonl, or stands there twice"
    return {
        "said": totals.done,
        "failed": totals.failed,
        "done_before": count - totals.done - totals.failed,
        "seconds": round(seconds, 1),
        "peak_rss_megabytes": round(peak / 1e6, 1),
    }


def random_synthesizer() -> Synthesizer:
    """Decoders of one layer of 32 channels, not trained."""
    codec, vocabulary = get_codec("mel_rvq").info, Vocabulary.default()
    sizes = {"n_symbols": vocabulary.size, "codebooks": codec.codebooks, "codebook_size": codec.codebook_size}
    configs = [ModelConfig(s, d_model=32, n_layers=1, n_heads=2, d_ff=64, **sizes) for s in get_args(Stage)]
    parts = [part for config in configs for part in (config, build(config).init(jax.random.key(0)))]
    return Synthesizer(ModelDir(*parts, vocabulary, codec, max_tokens=600))


if __name__ == "__main__":
    tyro.cli(BatchMemory).run()
