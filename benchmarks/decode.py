"""Decoding speed by batch size, against what the device's memory bandwidth and arithmetic allow.

    python benchmarks/decode.py                                        # `tiny` and the paper's size, batch 1 to 256
    python benchmarks/decode.py --presets base --batch-sizes 1 8 --frames 75              # what two CPU cores can take
    python benchmarks/decode.py --presets base --batch-sizes 1 64 --topology v5e:2x2      # compiled for an absent TPU

Decoders are random and forced to draw exactly the asked frames behind a prompt of 3 s. A step of the AR must read its
parameters and the keys and values of what came before, and multiply with them; `roofline_share` is the time that takes
at the device's limits over the time of a step. Limits are the data sheet's for chips of `valle_jax/parallel/chips.py`,
else measured: a product of matrices, and a pass over as many bytes as a step reads (so that on a CPU whose cache holds
them it is the cache's). Time to the first audio is that of prefill, `first_frames`, their NAR and codec. With a
topology nothing is timed: the samplers are compiled for one of its chips, as `valle plan --what sample` does.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from synthesis import PHONEMES_PER_SECOND
from train_step import matmul_flops

from valle_jax.codec import get_codec
from valle_jax.config import Config, ModelConfig
from valle_jax.configs import get_preset
from valle_jax.inference.batching import Job, ar_batch, fill_codebooks
from valle_jax.inference.generate import generate_ar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params, build
from valle_jax.model.embedding import compute_dtype
from valle_jax.parallel.chips import find_chip
from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.sample_plan import plan_sampling
from valle_jax.plan.topology import get_topology
from valle_jax.text.vocabulary import EOS_ID, Vocabulary

SAMPLING = Sampling(temperature=0.8, top_p=0.95)


@dataclasses.dataclass(frozen=True)
class Work:
    """What steps of the AR cannot do without.

    Attributes:
      flops: of the products, for all rows.
      bytes: of parameters, keys and values, read once, in the dtype of the computation.
    """

    flops: float
    bytes: float

    @classmethod
    def of_step(cls, decoder: Decoder, rows: int, context: float) -> Work:
        """One more token in every row, behind `context` tokens."""
        config, shapes = decoder.config, decoder.abstract_params
        used = {name: shapes[name] for name in ("transformer", "groups", "head") if name in shapes}
        matrices = sum(leaf.size for leaf in jax.tree.leaves(used))
        matrices += 0 if "head" in shapes else (config.codebook_size + 1) * config.d_model
        cached = 2 * config.n_layers * config.d_model * context  # keys and values of a row
        size = compute_dtype(config).itemsize
        return cls(2.0 * rows * (matrices + cached), size * (matrices + rows * cached))


@dataclasses.dataclass(frozen=True)
class Decode:
    """Prints a line of JSON per preset and batch size."""

    presets: tuple[str, ...] = ("tiny", "base")
    """Of the decoders; `base` is the paper's size."""
    batch_sizes: tuple[int, ...] = (1, 8, 64, 256)
    """Utterances side by side."""
    frames: int = 300
    """To draw per utterance."""
    first_frames: int = 38
    """Of the first audio: half a second."""
    prompt_seconds: float = 3.0
    """Of the acoustic prompt."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; auto: bfloat16 on accelerators."""
    repeats: int = 3
    """Timed runs after the first; the median counts."""
    bandwidth: float | None = None
    """Bytes/s of the device's memory, in place of the data sheet's or the measured ones."""
    flops: float | None = None
    """FLOP/s of the device, likewise."""
    topology: str | None = None
    """Compile for a chip of this TPU topology and time nothing."""

    def run(self) -> None:
        """Runs the benchmark."""
        codec = get_codec("mel_rvq")
        sizes = {
            "model.n_symbols": Vocabulary.default().size,
            "model.codebooks": codec.info.codebooks,
            "model.codebook_size": codec.info.codebook_size,
            "model.dtype": self.dtype,
        }
        for preset in self.presets:
            configs = [get_preset(preset, stage).override(sizes) for stage in ("ar", "nar")]
            if self.topology is not None:
                self._plan(preset, configs)
                continue
            decoders = [build(config.model) for config in configs]
            ar, nar = ((decoder, jax.jit(decoder.init)(jax.random.key(0))) for decoder in decoders)
            for batch_size in self.batch_sizes:
                print(json.dumps({"preset": preset, **self._measure(batch_size, codec, ar, nar)}), flush=True)

    def _measure(self, rows: int, codec, ar: tuple[Decoder, Params], nar: tuple[Decoder, Params]) -> dict:
        per_second = codec.info.frames_per_second
        jobs = [self._job(i, codec) for i in range(rows)]
        keys = jax.random.split(jax.random.key(0), rows)
        prefixes = ar_batch(jobs, ar[0])

        def draw(frames: int) -> None:
            limits = np.full(rows, frames, np.int32)
            out = generate_ar(*ar, prefixes, keys, limits, limits, sampling=SAMPLING, max_frames=self.frames)
            jax.block_until_ready(out)

        def fill(frames: int) -> None:
            codes = fill_codebooks(jobs, [np.zeros(frames, np.int32)] * rows, nar)
            for start in range(0, rows, 16):
                codec.decode(np.stack(codes[start : start + 16]))

        prefill, drawn = self._time(lambda: draw(0)), self._time(lambda: draw(self.frames))
        first = self._time(lambda: draw(self.first_frames)) + self._time(lambda: fill(self.first_frames))
        filled = self._time(lambda: fill(self.frames))
        steps = -(-self.frames // ar[0].config.codes_per_step)
        step = (drawn - prefill) / steps
        work = Work.of_step(ar[0], rows, prefixes["segment"].sum(1).mean() + steps / 2)
        flops, bandwidth = self._limits(work, ar[0].config)
        limits = {"compute": work.flops / flops, "memory": work.bytes / bandwidth}
        return {
            "batch_size": rows,
            "dtype": compute_dtype(ar[0].config).name,
            "ar_tokens_per_second": round(rows * self.frames / (drawn - prefill), 1),
            "real_time_factor": round((drawn + filled) * per_second / (rows * self.frames), 4),
            "first_audio_seconds": round(first, 4),
            "prefill_seconds": round(prefill, 4),
            "step_milliseconds": round(1000 * step, 3),
            "limit_milliseconds": {name: round(1000 * seconds, 4) for name, seconds in limits.items()},
            "roofline_share": round(max(limits.values()) / step, 3),
            "bound": max(limits, key=lambda name: limits[name]),
            "gigabytes_per_second": round(bandwidth / 1e9, 1),
            "teraflops": round(flops / 1e12, 2),
            "device": jax.devices()[0].device_kind,
        }

    def _job(self, seed: int, codec) -> Job:
        rng = np.random.default_rng(seed)
        prompt_frames = round(self.prompt_seconds * codec.info.frames_per_second)
        seconds = self.prompt_seconds + self.frames / codec.info.frames_per_second
        phonemes = rng.integers(3, 40, round(seconds * PHONEMES_PER_SECOND))
        codes = rng.integers(0, codec.info.codebook_size, (prompt_frames, codec.info.codebooks))
        return Job(np.append(phonemes, EOS_ID).astype(np.int32), codes.astype(np.int32), self.frames, self.frames)

    def _time(self, function: Callable[[], None]) -> float:
        function()
        durations = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            function()
            durations.append(time.perf_counter() - start)
        return float(np.median(durations))

    def _limits(self, work: Work, config: ModelConfig) -> tuple[float, float]:
        """FLOP/s and bytes/s."""
        chip = find_chip(jax.devices()[0].device_kind)
        flops, bandwidth = self.flops, self.bandwidth
        if flops is None:
            flops = chip.peak_flops if chip else matmul_flops(make_mesh({"data": 1}), compute_dtype(config), 2048)
        if bandwidth is None:
            bandwidth = chip.hbm_bandwidth if chip else memory_bandwidth(work.bytes)
        return flops, bandwidth

    def _plan(self, preset: str, configs: list[Config]) -> None:
        """Prints what the compiler makes of both samplers on one chip, and which of its limits they meet first."""
        assert self.topology is not None
        jax.config.update("jax_platforms", "cpu")  # the accelerators of this machine are not needed
        topology = get_topology(self.topology)
        job = self._job(0, get_codec("mel_rvq"))
        for rows, config in itertools.product(self.batch_sizes, configs):
            plan = plan_sampling(config, topology, rows=rows, prompt_tokens=job.prefix_length, frames=self.frames)
            decoder, chip = build(plan.config.model), topology.chip
            ar = config.model.stage == "ar"
            steps = -(-self.frames // config.model.codes_per_step)
            if ar:
                flops = steps * Work.of_step(decoder, rows, job.prefix_length + steps / 2).flops
            else:
                tokens = job.prefix_length + self.frames
                flops = (config.model.codebooks - 1) * tokens * Work.of_step(decoder, rows, tokens).flops
            seconds = {} if chip is None else {"compute": flops / chip.peak_flops, "memory": plan.memory_seconds}
            facts = {
                "preset": preset,
                "stage": config.model.stage,
                "batch_size": rows,
                "chip": plan.chip,
                "fits": plan.fits,
                "gigabytes_moved": round(plan.hbm_bytes / 1e9, 2),
                "limit_milliseconds": {name: round(1000 * value, 2) for name, value in seconds.items()},
                "frames_per_second_at_most": round(rows * self.frames / max(seconds.values())) if seconds else None,
                "bound": max(seconds, key=lambda name: seconds[name]) if seconds else None,
                "compile_seconds": round(plan.compile_seconds, 1),
            }
            print(json.dumps(facts), flush=True)


def memory_bandwidth(size: float) -> float:
    """Bytes/s of passes that read so many bytes and write them back in place: new memory would cost page faults."""
    x = jnp.ones(int(size) // 4, jnp.float32)
    scale = jax.jit(lambda x: x * 1.0001, donate_argnums=0)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        x = jax.block_until_ready(scale(x))
        seconds.append(time.perf_counter() - start)
    return 2 * x.nbytes / min(seconds)


if __name__ == "__main__":
    tyro.cli(Decode).run()
