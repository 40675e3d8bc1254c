"""Whose voice it is: embeddings of recordings, and the nearest of several known voices.

`Resemblyzer` is a speaker verification network with bundled weights (it needs torch); `get_voice` has more by name.
`MelStatistics` needs nothing: long-term statistics of the spectrum and the pitch, with no learning. It tells voices
apart that differ in timbre or pitch, as its figure on true recordings shows; it is no judge of human likeness.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from valle_jax.audio import resample
from valle_jax.codec.mel_rvq import SAMPLE_RATE, log_mel
from valle_jax.errors import UserError


class VoiceMeasure(Protocol):
    """Recordings to vectors that lie near each other for one voice."""

    name: str
    standardise: bool  # whether the vectors' dimensions are to be scaled by their spread within a voice

    def embed(self, audio: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Float [samples] each, not silent, as vectors float32 [n, d]."""


class Resemblyzer:
    """The GE2E encoder that the `resemblyzer` package bundles."""

    name = "resemblyzer"
    standardise = False

    def __init__(self):
        """Loads the network.

        Raises:
          UserError: resemblyzer or torch is not installed.
        """
        for package in ("torch", "resemblyzer"):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"{package} is not installed; speaker similarity by resemblyzer needs it")
        from resemblyzer import VoiceEncoder, preprocess_wav

        self._preprocess = preprocess_wav
        self._encoder = VoiceEncoder("cpu", verbose=False)

    def embed(self, audio: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Unit vectors float32 [n, 256]."""
        clean = [self._preprocess(resample(samples, sample_rate, 16_000)) for samples in audio]
        return np.stack([self._encoder.embed_utterance(samples) for samples in clean])


def get_voice(name: str) -> VoiceMeasure:
    """A speaker model by name.

    Args:
      name: `resemblyzer` (offline), `wavlm-tdnn` (Microsoft's WavLM base plus with a TDNN; P1's is UniSpeech's larger
        one, so its figures are not P1's), or a model id or folder of transformers.

    Raises:
      UserError: a package is not installed, or weights cannot be had.
    """
    if name == Resemblyzer.name:
        return Resemblyzer()
    from valle_jax.hearing.transformers_models import TransformersSpeaker

    return TransformersSpeaker(name)


class MelStatistics:
    """Mean and deviation over the loud frames of a smooth log spectrum, and of the pitch."""

    name = "mel_statistics"
    standardise = True
    cepstra = 24  # coefficients of the log-mel frames kept; level (the first) is left out
    loud_share = 0.6  # of the frames, the loudest, are looked at: vowels rather than pauses

    def embed(self, audio: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Vectors float32 [n, 2 * (cepstra + 1)]."""
        return np.stack([self._embed(resample(samples, sample_rate, SAMPLE_RATE)) for samples in audio])

    def _embed(self, samples: np.ndarray) -> np.ndarray:
        frames = log_mel(samples)
        loudness = frames.mean(axis=1)
        loud = loudness >= np.quantile(loudness, 1 - self.loud_share)
        angles = np.pi / frames.shape[1] * (np.arange(frames.shape[1]) + 0.5)
        cepstra = frames[loud] @ np.cos(angles[:, None] * np.arange(1, self.cepstra + 1)) / frames.shape[1]
        features = np.concatenate([cepstra, np.log(pitch(samples, len(frames))[loud])[:, None]], axis=1)
        low, middle, high = np.quantile(features[:, -1], [0.25, 0.5, 0.75])  # octave errors do not move these
        means, deviations = features.mean(axis=0), features.std(axis=0)
        means[-1], deviations[-1] = middle, high - low
        return np.concatenate([means, deviations]).astype(np.float32)


def pitch(samples: np.ndarray, n_frames: int, lowest_hertz: float = 60, highest_hertz: float = 400) -> np.ndarray:
    """The best period's frequency in Hz [n_frames] of float [samples] at 24 kHz, by autocorrelation; voiced or not."""
    window, hop = 1920, SAMPLE_RATE // 75  # 80 ms hold two periods of the lowest pitch
    padded = np.pad(samples, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: n_frames * hop : hop][:n_frames]
    spectrum = np.fft.rfft(frames * np.hanning(window), 2 * window)
    correlation = np.fft.irfft(np.square(np.abs(spectrum)))
    lags = np.arange(int(SAMPLE_RATE / highest_hertz), int(SAMPLE_RATE / lowest_hertz) + 1)
    return SAMPLE_RATE / lags[correlation[:, lags].argmax(axis=1)]


@dataclasses.dataclass(frozen=True)
class KnownVoices:
    """Centroids of known voices, to which recordings are compared.

    Attributes:
      names: of the voices.
      centroids: float [voices, d], scaled.
      centre: float [d], subtracted from embeddings.
      scale: float [d], which they are divided by then.
    """

    names: tuple[str, ...]
    centroids: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, embeddings: np.ndarray, speakers: Sequence[str], *, standardise: bool) -> KnownVoices:
        """Centroids of embeddings [n, d] by speaker.

        With `standardise`, dimensions are centred and divided by their spread within a speaker, as in a linear
        discriminant analysis with a diagonal covariance.
        """
        names = tuple(sorted(set(speakers)))
        of = np.array([names.index(speaker) for speaker in speakers])
        centroids = np.stack([embeddings[of == i].mean(axis=0) for i in range(len(names))])
        centre, scale = np.zeros(embeddings.shape[1]), np.ones(embeddings.shape[1])
        if standardise:
            centre = centroids.mean(axis=0)
            scale = (embeddings - centroids[of]).std(axis=0) + 1e-6
        return cls(names, (centroids - centre) / scale, centre, scale)

    def similarity(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosine [n, voices] between embeddings [n, d] and the voices."""
        scaled = (embeddings - self.centre) / self.scale
        return (_unit(scaled) @ _unit(self.centroids).T).astype(np.float64)

    def nearest(self, embeddings: np.ndarray) -> list[str]:
        """The most similar voice of each embedding."""
        return [self.names[i] for i in self.similarity(embeddings).argmax(axis=1)]

    def similarity_to(self, embeddings: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
        """Cosine [n] between each embedding and the voice named beside it."""
        columns = [self.names.index(speaker) for speaker in speakers]
        return self.similarity(embeddings)[np.arange(len(columns)), columns]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
