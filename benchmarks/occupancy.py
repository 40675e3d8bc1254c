"""Continuous against static batching, for utterances of mixed lengths: how full the slots are, and codes per second.

    python benchmarks/occupancy.py                          # 48 utterances of 1 to 12 s, 8 slots, `small`
    python benchmarks/occupancy.py --preset base --slots 64 --utterances 512

Static batches take the utterances as they come and go on until the longest of them has ended; the engine gives a slot
the next utterance at once. Decoders are random and forced to draw the asked lengths, with the same keys in both. The
limit: the engine's slots are 85 % full, the time until the queue is empty and the last slots run dry included.
"""

from __future__ import annotations

import dataclasses
import json
import time

import jax
import numpy as np
import tyro
from synthesis import PHONEMES_PER_SECOND

from valle_jax.config import parse_settings
from valle_jax.configs import get_preset
from valle_jax.inference.batching import Job, ar_batch, ar_prefix_length
from valle_jax.inference.engine import Engine, Task
from valle_jax.inference.generate import generate_ar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params, build
from valle_jax.text.vocabulary import EOS_ID, Vocabulary

FRAMES_PER_SECOND = 75
SAMPLING = Sampling(temperature=0.8, top_p=0.95)
LIMIT = 0.85


@dataclasses.dataclass(frozen=True)
class OccupancyBenchmark:
    """Runs both in turn and prints a line of JSON; exit 1 where the engine's slots are not full enough."""

    preset: str = "small"
    """Preset of the AR decoder."""
    slots: int = 8
    """Utterances side by side."""
    utterances: int = 48
    """In the queue."""
    seconds: tuple[float, float] = (1.0, 12.0)
    """Shortest and longest utterance; lengths are uniform."""
    prompt_seconds: float = 3.0
    """Of the acoustic prompt."""
    repeats: int = 2
    """Timed runs of each; the best counts."""
    seed: int = 0
    """Of the lengths."""
    set: tuple[str, ...] = ()
    """Configuration overrides, key=value."""

    def run(self) -> None:
        """Runs the benchmark."""
        sizes = {"model.n_symbols": Vocabulary.default().size, "model.codebooks": 8, "model.codebook_size": 1024}
        decoder = build(get_preset(self.preset, "ar").override({**sizes, **parse_settings(self.set)}).model)
        ar = decoder, jax.jit(decoder.init)(jax.random.key(0))
        tasks = self._tasks()
        brief = [dataclasses.replace(t, job=dataclasses.replace(t.job, min_frames=2, max_frames=2)) for t in tasks]
        longest = max(task.job.max_frames for task in tasks)
        most = max(ar_prefix_length(task.job, decoder.config) + task.job.max_frames for task in tasks)
        engine = Engine(ar, SAMPLING, slots=self.slots, max_tokens=most, max_frames=longest)
        for _ in engine.run(brief):  # compiles
            pass
        self._static(ar, brief, longest)
        static, continuous = [], []
        for _ in range(self.repeats):
            engine.occupancy.steps = engine.occupancy.drawn = 0
            start = time.perf_counter()
            frames = sum(len(take.codes) for _, takes in engine.run(tasks) for take in takes)
            continuous.append(time.perf_counter() - start)
            start = time.perf_counter()
            steps = self._static(ar, tasks, longest)
            static.append(time.perf_counter() - start)
        assert frames == sum(task.job.max_frames for task in tasks)
        print(
            json.dumps(
                {
                    "preset": self.preset,
                    "slots": self.slots,
                    "utterances": len(tasks),
                    "frames": frames,
                    "continuous_occupancy": round(engine.occupancy.share, 3),
                    "static_occupancy": round(frames / (steps * self.slots), 3),
                    "continuous_codes_per_second": round(frames / min(continuous), 1),
                    "static_codes_per_second": round(frames / min(static), 1),
                    "speedup": round(min(static) / min(continuous), 2),
                    "limit_occupancy": LIMIT,
                    "device": jax.devices()[0].device_kind,
                }
            )
        )
        raise SystemExit(engine.occupancy.share < LIMIT)

    def _tasks(self) -> list[Task]:
        rng = np.random.default_rng(self.seed)
        prompt_frames = round(self.prompt_seconds * FRAMES_PER_SECOND)
        tasks = []
        for i in range(self.utterances):
            seconds = rng.uniform(*self.seconds)
            phonemes = rng.integers(3, 40, round((self.prompt_seconds + seconds) * PHONEMES_PER_SECOND))
            codes = rng.integers(0, 1024, (prompt_frames, 8)).astype(np.int32)
            frames = round(seconds * FRAMES_PER_SECOND)
            job = Job(np.append(phonemes, EOS_ID).astype(np.int32), codes, frames, frames)
            tasks.append(Task(str(i), job, jax.random.split(jax.random.fold_in(jax.random.key(0), i), 1)))
        return tasks

    def _static(self, ar: tuple[Decoder, Params], tasks: list[Task], max_frames: int) -> int:
        """Draws all in batches of so many as there are slots; returns the steps."""
        steps = 0
        for start in range(0, len(tasks), self.slots):
            batch = tasks[start : start + self.slots]
            rows = [task.job for task in batch]
            limits = np.array([job.max_frames for job in rows], np.int32)
            keys = jax.numpy.concatenate([task.keys for task in batch])
            prefixes = ar_batch(rows, ar[0])
            out = generate_ar(*ar, prefixes, keys, limits, limits, sampling=SAMPLING, max_frames=max_frames)
            steps += int(out.length.max())
        return steps


if __name__ == "__main__":
    tyro.cli(OccupancyBenchmark).run()
