"""Real-time factor of synthesis: AR and NAR after warm-up, the codec's decoding apart.

    python benchmarks/synthesis.py                      # 4 s from a 3 s prompt, `small`, batch 1
    python benchmarks/synthesis.py --batch-sizes 1 8 --preset tiny
    python benchmarks/synthesis.py --set model.group_size=2

Decoders are random and forced to draw exactly the asked length, which costs what trained ones cost. The limit: a
real-time factor of 0.20 (AR + NAR) on two CPU cores in float32, `small`; PyTorch eager with a cache needs 0.45.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time

import jax
import numpy as np
import tyro

from valle_jax.codec import get_codec
from valle_jax.config import parse_settings
from valle_jax.configs import get_preset
from valle_jax.inference.batching import Job, ar_batch, generate, nar_batch, target_frames
from valle_jax.inference.generate import generate_ar, generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.text.vocabulary import EOS_ID, Vocabulary

PHONEMES_PER_SECOND = 14


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Times prefill + decoding, the NAR's stages, and the codec, and prints a line of JSON per batch size."""

    preset: str = "small"
    """Preset of the decoders."""
    batch_sizes: tuple[int, ...] = (1, 8)
    """Utterances side by side."""
    seconds: float = 4.0
    """Of speech to generate per utterance."""
    prompt_seconds: float = 3.0
    """Of the acoustic prompt."""
    repeats: int = 5
    """Timed runs after the first; the median counts."""
    set: tuple[str, ...] = ()
    """Configuration overrides, key=value."""

    def run(self) -> None:
        """Runs the benchmark."""
        codec = get_codec("mel_rvq")
        decoders = []
        for stage in ("ar", "nar"):
            config = get_preset(self.preset, stage).override(
                {
                    "model.n_symbols": Vocabulary.default().size,
                    "model.codebooks": codec.info.codebooks,
                    "model.codebook_size": codec.info.codebook_size,
                    **parse_settings(self.set),
                }
            )
            decoder = build(config.model)
            decoders.append((decoder, jax.jit(decoder.init)(jax.random.key(0))))
        ar, nar = decoders
        frames = round(self.seconds * codec.info.frames_per_second)
        for batch_size in self.batch_sizes:
            self._measure(batch_size, frames, codec, ar, nar)

    def _measure(self, batch_size: int, frames: int, codec, ar, nar) -> None:
        """Prints the figures of one batch size."""
        jobs = [self._job(i, frames, codec) for i in range(batch_size)]
        keys = jax.random.split(jax.random.key(0), batch_size)
        sampling = Sampling(temperature=0.8, top_p=0.95)
        limits = np.full(batch_size, frames, np.int32)
        batches = {
            "ar": ar_batch(jobs, ar[0]),
            "nar": nar_batch(jobs, [np.zeros(frames, np.int32)] * batch_size, nar[0].config),
            "codec": np.zeros((1, frames, codec.info.codebooks), np.int32),
        }
        targets = target_frames(batches["nar"]["segment"].shape[1], frames)
        parts = {
            "ar_and_nar": lambda: generate(jobs, ar, nar, keys[:, None], sampling),
            "ar": lambda: generate_ar(*ar, batches["ar"], keys, limits, limits, sampling=sampling, max_frames=frames),
            "nar": lambda: generate_nar(*nar, batches["nar"], frames=targets),
            "codec": lambda: codec.decode(batches["codec"]),
        }
        seconds = {name: self._time(function) for name, function in parts.items()}
        audio = self.seconds * batch_size
        print(
            json.dumps(
                {
                    "preset": self.preset,
                    "batch_size": batch_size,
                    "real_time_factor": round(seconds["ar_and_nar"] / audio, 4),
                    "ar": round(seconds["ar"] / audio, 4),
                    "nar": round(seconds["nar"] / audio, 4),
                    "codec_decode": round(seconds["codec"] / self.seconds, 4),
                    "ar_frames_per_second": round(frames * batch_size / seconds["ar"], 1),
                    "ar_steps_per_second": round(-(-frames // ar[0].config.codes_per_step) / seconds["ar"], 1),
                    "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
                }
            )
        )

    def _job(self, seed: int, frames: int, codec) -> Job:
        rng = np.random.default_rng(seed)
        phonemes = round((self.seconds + self.prompt_seconds) * PHONEMES_PER_SECOND)
        prompt_frames = round(self.prompt_seconds * codec.info.frames_per_second)
        return Job(
            np.append(rng.integers(3, 40, phonemes), EOS_ID).astype(np.int32),
            rng.integers(0, codec.info.codebook_size, (prompt_frames, codec.info.codebooks)).astype(np.int32),
            frames,
            frames,
        )

    def _time(self, function) -> float:
        jax.block_until_ready(function())
        durations = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            jax.block_until_ready(function())
            durations.append(time.perf_counter() - start)
        return float(np.median(durations))


if __name__ == "__main__":
    tyro.cli(Synthesis).run()
