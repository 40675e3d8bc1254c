"""What a take looks like: its waveform, its mel spectrogram and its codes, over one time axis."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.figure import Figure

from valle_jax.audio import resample
from valle_jax.codec.mel_rvq import SAMPLE_RATE, log_mel
from valle_jax.inference.request import Audio

_INK = "#4338ca"


def draw_take(path: str | os.PathLike[str], audio: Audio, seconds: float) -> None:
    """Writes a PNG of 900 × 960 pixels.

    Args:
      path: of the picture.
      audio: the take.
      seconds: length of the time axis, so that pictures of several takes can be compared.
    """
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    waveform, spectrogram, matrix = figure.subplots(3, 1, sharex=True, height_ratios=(2, 4, 3))
    length = max(1, len(audio.samples)) / audio.sample_rate
    waveform.plot(np.arange(len(audio.samples)) / audio.sample_rate, audio.samples, color=_INK, linewidth=0.4)
    waveform.set(ylim=(-1, 1), yticks=(-1, 0, 1))
    waveform.set_ylabel("waveform")
    mel = log_mel(resample(audio.samples, audio.sample_rate, SAMPLE_RATE))
    spectrogram.imshow(mel.T, origin="lower", aspect="auto", cmap="magma", extent=(0, length, 0, mel.shape[1]))
    spectrogram.set_ylabel("mel band")
    codebooks = audio.codes.shape[1]
    matrix.imshow(
        audio.codes.T, aspect="auto", cmap="viridis", interpolation="nearest", extent=(0, length, codebooks + 0.5, 0.5)
    )
    matrix.set(ylabel="codebook", yticks=range(1, codebooks + 1), xlabel="seconds", xlim=(0, seconds))
    figure.savefig(path, dpi=150)
