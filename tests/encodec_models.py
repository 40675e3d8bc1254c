"""EnCodec with random parameters, whose codes are as varied as a trained one's."""

import os
import pathlib
import subprocess
import sys

import numpy as np


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise of changing loudness and colour, float32 [n_samples]."""
    random = np.random.default_rng(seed)
    time = np.arange(n_samples) / 24_000
    tones = sum(
        np.sin(2 * np.pi * time * random.uniform(80, 8000) + 3 * np.sin(time * random.uniform(1, 9))) for _ in range(4)
    )
    return ((0.1 + 0.1 * np.sin(time * 12)) * (random.normal(size=n_samples) + tones)).astype(np.float32)


def save_random_weights(path: pathlib.Path) -> None:
    """A state dict file of the real architecture.

    The codebooks, zero in a fresh model, are filled with vectors of the covariance that the residuals of noise have and
    of equal length, so that all entries are used. At random, biases outweigh the signal; without them codes hang on the
    audio, not on the last bits of a constant.
    """
    import torch

    from valle_jax.codec.encodec_torch import import_encodec

    _, encodec = import_encodec()
    torch.manual_seed(0)
    model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    for name, parameter in model.encoder.named_parameters():
        if "bias" in name:
            parameter.data.zero_()
    with torch.inference_mode():
        audio = np.stack([noise(8 * 24_000, seed) for seed in range(100, 104)])
        rest = model.encoder(torch.from_numpy(audio)[:, None]).swapaxes(1, 2).reshape(-1, 128)
        for layer in model.quantizer.vq.layers:
            entries = torch.randn(1024, len(rest)) @ rest
            entries *= 0.4 * rest.norm(dim=1).mean() / entries.norm(dim=1, keepdim=True)
            layer._codebook.embed.data.copy_(entries)
            rest = rest - entries[torch.cdist(rest, entries).argmin(-1)]
    torch.save(model.state_dict(), path)


def run_without(blocked: str, code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a process where the package `blocked` cannot be imported."""
    blocker = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
from valle_jax.codec import get_codec
from valle_jax.errors import UserError
"""
    return subprocess.run(
        [sys.executable, "-c", blocker + code], capture_output=True, text=True, env={**os.environ, **environment}
    )
