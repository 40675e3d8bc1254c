"""EnCodec in JAX beside the PyTorch package on this machine: speed, difference, and the error of bfloat16.

    python benchmarks/codec_speed.py                  # decodes 10 s at batch 8, and encodes 1 item of 10 s
    python benchmarks/codec_speed.py --weights encodec_24khz-d7cc33bc.th --codes preset.npz

Without weights they are random, of the real architecture. The limit: JAX decodes faster than the package on a CPU.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from valle_jax.codec.encodec_jax import SAMPLE_RATE, EncodecJax
from valle_jax.codec.encodec_torch import EncodecTorch, import_encodec

FRAMES_PER_SECOND = 75


@dataclasses.dataclass(frozen=True)
class CodecSpeed:
    """Times both implementations, alternating, and prints one line of JSON."""

    weights: str | None = None
    """State dict file of EnCodec; default: random parameters."""
    codes: str | None = None
    """.npz with `audio_tokens` [1, T, 8], on which the error of bfloat16 is measured; default: random codes."""
    batch: int = 8
    """Items decoded side by side."""
    seconds: float = 10.0
    """Of each item."""
    repeats: int = 5
    """Timed runs of each, after one that warms up; the median counts."""

    def run(self) -> None:
        """Runs the benchmark."""
        with tempfile.TemporaryDirectory() as folder:
            weights = self.weights or random_weights(pathlib.Path(folder))
            ours, theirs = EncodecJax.load(weights), EncodecTorch.load(weights, batch_seconds=self.batch * self.seconds)
            rough = EncodecJax.load(weights, decode_dtype=jnp.bfloat16)
        random = np.random.default_rng(0)
        codes = random.integers(0, 1024, (self.batch, round(self.seconds * FRAMES_PER_SECOND), 8))
        decoded = self._compare(lambda: ours.decode(codes), lambda: theirs.decode(codes))
        audio = [0.1 * random.normal(size=round(self.seconds * SAMPLE_RATE)).astype(np.float32)]
        encoded = self._compare(lambda: ours.encode(audio), lambda: theirs.encode(audio))
        mine, others = (codec.encode(audio)[0][0] for codec in (ours, theirs))
        speech = np.load(self.codes)["audio_tokens"] if self.codes else codes[:1]
        exact = ours.decode(speech)[0]
        difference = np.abs(np.stack(ours.decode(codes)) - np.stack(theirs.decode(codes))).max()
        rms_error = np.sqrt(np.mean(np.square(rough.decode(speech)[0] - exact)) / np.mean(np.square(exact)))
        result = {
            "device": jax.devices()[0].device_kind,
            "batch": self.batch,
            "seconds": self.seconds,
            "decode": decoded,
            "encode": encoded,
            "decode_real_time_factor": round(decoded["jax_seconds"] / (self.batch * self.seconds), 4),
            "frames_of_equal_codes": round(float((mine == others).all(-1).mean()), 5),
            "fewest_distinct_codes_of_a_level": min(len(np.unique(level)) for level in others.T),
            "largest_difference": float(difference / np.abs(exact).max()),
            "bfloat16_relative_rms_error": round(float(rms_error), 5),
        }
        print(json.dumps(result))

    def _compare(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, float]:
        seconds: dict[str, list[float]] = {"jax": [], "torch": []}
        for _ in range(1 + self.repeats):
            for name, function in (("jax", ours), ("torch", theirs)):
                start = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - start)
        jax_seconds, torch_seconds = (float(np.median(seconds[name][1:])) for name in ("jax", "torch"))
        return {
            "jax_seconds": round(jax_seconds, 3),
            "torch_seconds": round(torch_seconds, 3),
            "torch_over_jax": round(torch_seconds / jax_seconds, 2),
        }


def random_weights(folder: pathlib.Path) -> str:
    """A state dict file of random parameters in `folder`."""
    torch, encodec = import_encodec()
    torch.manual_seed(0)
    model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_()
    torch.save(model.state_dict(), folder / "random.th")
    return str(folder / "random.th")


if __name__ == "__main__":
    tyro.cli(CodecSpeed).run()
