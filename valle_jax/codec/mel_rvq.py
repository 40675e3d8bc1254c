"""The embedded codec `mel_rvq`: log-mel frames, eight residual codebooks, Griffin-Lim. No download, numpy only.

It is made to be modelled. The first codebook is searched in a space of few, liftered cepstra (a smooth spectral
envelope: the words, hardly the pitch or the loudness) and a change of code costs a little (`switch_cost`), so that its
codes hold still while a sound holds still; the other seven levels add what is left of the frame, plainly nearest first.
Entry 0 of every level is the zero vector and the log-mel of digital silence is zero: silence is code 0 on all levels.

The bands end at 8 kHz, because the recordings that the codebooks were fitted on (`data_prep/fit_mel_rvq.py`) do.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import os
import pathlib
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from valle_jax.codec.base import CodecInfo, CodecStream, pad_codes
from valle_jax.errors import UserError

SAMPLE_RATE = 24_000
HOP = 320  # samples per frame: 75 frames/s
WINDOW = 4 * HOP  # 53 ms: resolves the harmonics of most voices; Hann at a quarter's hop overlaps to a constant
N_MELS = 80
MAX_HERTZ = 8_000
# Added to the mel magnitudes before the logarithm (a full-scale sine has 0.5): background noise under about -55 dBFS
# hardly shows, so it does not make the codes of pauses flicker.
FLOOR = 5e-5
DECIBELS = 20 / np.log(10)  # per unit of `log_mel`
_PAD = (WINDOW - HOP) // 2  # centres a window on its frame's samples
_BLOCK_FRAMES = 4096  # frames (55 s) coded at a time: bounds the memory of long recordings
_MEL_INVERSION_STEPS = 30
_GRIFFIN_LIM_STEPS = 32
_MOMENTUM = 0.99


class MelRVQ:
    """`Codec` over fitted codebooks; see the module's text. Make one with `load`."""

    def __init__(self, codebooks: np.ndarray, projection: np.ndarray, switch_cost: float, weight_hash: str):
        """Args as in the weight file: codebooks [Q, entries, n_mels], projection [n_mels, cepstra], switch_cost."""
        self.codebooks = codebooks.astype(np.float32)
        self.projection = projection.astype(np.float32)
        self.switch_cost = float(switch_cost)
        self._search = [self.codebooks[0] @ self.projection, *self.codebooks[1:]]
        self.info = CodecInfo(
            name="mel_rvq",
            sample_rate=SAMPLE_RATE,
            frames_per_second=SAMPLE_RATE / HOP,
            codebooks=codebooks.shape[0],
            codebook_size=codebooks.shape[1],
            weight_hash=weight_hash,
        )

    @classmethod
    def load(cls, weights: str | None = None) -> MelRVQ:
        """Reads a weight file of `data_prep/fit_mel_rvq.py`; None: the one shipped with the package.

        Raises:
          UserError: the file is missing, damaged or not such a file.
        """
        path = pathlib.Path(weights) if weights else importlib.resources.files("valle_jax.codec") / "mel_rvq.npz"
        try:
            content = path.read_bytes()
            with np.load(io.BytesIO(content)) as arrays:
                codebooks, projection, switch_cost = (arrays[k] for k in ("codebooks", "projection", "switch_cost"))
            if codebooks.ndim != 3 or codebooks.shape[2] != N_MELS or projection.shape[:-1] != (N_MELS,):
                raise ValueError(f"codebooks of shape {codebooks.shape}")
            if not all(np.isfinite(array).all() for array in (codebooks, projection, switch_cost)):
                raise ValueError("values that are not finite")
        except OSError as error:
            raise UserError(f"cannot read mel_rvq weights {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a mel_rvq weight file ({error}); see data_prep/fit_mel_rvq.py") from None
        return cls(codebooks, projection, float(switch_cost), hashlib.sha256(content).hexdigest()[:16])

    def log_mel(self, audio: np.ndarray) -> np.ndarray:
        """Float [samples] at 24 kHz as the codec's features, float32 [ceil(samples / 320), n_mels], 0 for silence."""
        return log_mel(audio)

    def encode(self, audio: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """`Codec.encode`. Each item is coded by itself, so its codes do not depend on its batch."""
        return pad_codes([self._encode_one(samples) for samples in audio], self.info.codebooks)

    def decode(self, codes: np.ndarray, lengths: np.ndarray | None = None) -> list[np.ndarray]:
        """`Codec.decode`; T frames give T * 320 samples. Codes [B, T, q] with q < Q decode the first q levels."""
        codes = np.asarray(codes)
        lengths = np.full(len(codes), codes.shape[1]) if lengths is None else lengths
        items = [c[:n] for c, n in zip(codes, lengths, strict=True)]
        # Threads, because numpy's transforms and products let others run meanwhile.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda item: griffin_lim(mel_to_magnitude(self.dequantize(item))), items))

    def stream(self) -> CodecStream:
        """`StreamingCodec.stream`."""
        from valle_jax.codec.mel_stream import MelStream

        return MelStream(self)

    def dequantize(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [T, q] as log-mel frames float32 [T, n_mels]: the sum of their entries."""
        return sum(
            (book[codes[:, level]] for level, book in enumerate(self.codebooks[: codes.shape[1]])),
            np.zeros((len(codes), N_MELS), np.float32),
        )

    def _encode_one(self, samples: np.ndarray) -> np.ndarray:
        frames = log_mel(samples)
        blocks = [frames[start : start + _BLOCK_FRAMES] for start in range(0, len(frames), _BLOCK_FRAMES)]
        return np.concatenate([self._quantize(block) for block in blocks or [frames]])

    def _quantize(self, residual: np.ndarray) -> np.ndarray:
        """Log-mel frames [T, n_mels] as codes uint16 [T, Q]."""
        codes = np.empty((len(residual), self.info.codebooks), np.uint16)
        for level, (entries, search) in enumerate(zip(self.codebooks, self._search, strict=True)):
            if level == 0:
                codes[:, 0] = cheapest_path(distances(residual @ self.projection, search), self.switch_cost)
            else:
                codes[:, level] = distances(residual, search).argmin(axis=1)
            residual = residual - entries[codes[:, level]]
        return codes


def log_mel(audio: np.ndarray) -> np.ndarray:
    """`MelRVQ.log_mel`: ln(1 + mel magnitude / FLOOR)."""
    audio = np.asarray(audio, np.float32)
    n_frames = -(-len(audio) // HOP)
    padded = np.pad(audio, (_PAD, n_frames * HOP - len(audio) + WINDOW - HOP - _PAD))
    mel = np.empty((n_frames, N_MELS), np.float32)
    for start in range(0, n_frames, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, n_frames)
        spectrum = np.fft.rfft(_frames(padded, start, stop) * _window())
        mel[start:stop] = np.abs(spectrum) @ _mel_filters()
    return np.log1p(mel * np.float32(2 / WINDOW / FLOOR))


def distances(points: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Squared distances [T, entries] of points [T, D] to entries [N, D], less the points' own norms."""
    result = points @ entries.T
    result *= -2
    result += np.square(entries).sum(axis=1)[None]
    return result


def cheapest_path(costs: np.ndarray, switch_cost: float) -> np.ndarray:
    """The sequence int [T] with the least sum of costs [T, N] plus `switch_cost` for every change (Viterbi)."""
    if len(costs) == 0:
        return np.zeros(0, np.intp)
    switched = np.empty(costs.shape, bool)
    best = np.empty(len(costs), np.intp)  # where a path that switches at t comes from
    total = costs[0] - costs[0].min()
    for t in range(1, len(costs)):
        best[t] = total.argmin()
        limit = total[best[t]] + switch_cost
        np.greater(total, limit, out=switched[t])
        total = np.minimum(total, limit) + costs[t]
        total -= total.min()  # keeps float32 exact over long recordings
    path = np.empty(len(costs), np.intp)
    path[-1] = total.argmin()
    for t in range(len(costs) - 1, 0, -1):
        path[t - 1] = best[t] if switched[t, path[t]] else path[t]
    return path


def mel_to_magnitude(frames: np.ndarray) -> np.ndarray:
    """Log-mel frames [T, n_mels] as magnitudes [T, WINDOW // 2 + 1] whose mel bands match.

    Non-negative by multiplicative updates (Lee and Seung 2001), from a start that is smooth across the bins.
    """
    filters = _mel_filters()
    mel = np.maximum(np.expm1(frames), 0) * np.float32(FLOOR * WINDOW / 2)
    weight = filters.sum(axis=1)
    coverage = np.maximum(weight, 1e-6)
    magnitude = (mel @ filters.T) / coverage
    for _ in range(_MEL_INVERSION_STEPS):
        magnitude *= ((mel / np.maximum(magnitude @ filters, 1e-9)) @ filters.T) / coverage
    return magnitude


def griffin_lim(magnitude: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """A waveform float32 [T * HOP] with about these STFT magnitudes [T, bins] (fast Griffin-Lim, Perraudin 2013).

    It begins with the `known` samples, if there are any, and its phases go on from theirs.
    """
    if len(magnitude) == 0:
        return np.zeros(0, np.float32)
    # The same start for the same frames: decoding must be repeatable.
    phase = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitude.shape).astype(np.float32)
    angles = np.exp(1j * phase)
    previous = np.zeros_like(angles)

    def waveform() -> np.ndarray:
        samples = _overlap_add(magnitude * angles)
        if known is not None:
            samples[_PAD : _PAD + len(known)] = known
        return samples

    for _ in range(_GRIFFIN_LIM_STEPS):
        rebuilt = np.fft.rfft(_frames(waveform(), 0, len(magnitude)) * _window())
        angles = rebuilt - np.float32(_MOMENTUM / (1 + _MOMENTUM)) * previous
        angles /= np.maximum(np.abs(angles), 1e-12)
        previous = rebuilt
    return np.ascontiguousarray(waveform()[_PAD:-_PAD])


def _frames(padded: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Windows [stop - start, WINDOW] of the padded waveform, as a view."""
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[start * HOP : (stop - 1) * HOP + 1 : HOP]


def _overlap_add(spectrum: np.ndarray) -> np.ndarray:
    """Inverse STFT [T, bins] to the padded waveform [T * HOP + WINDOW - HOP], least squares."""
    n_frames, overlap = len(spectrum), WINDOW // HOP
    pieces = (np.fft.irfft(spectrum, WINDOW) * _window()).reshape(n_frames, overlap, HOP)
    energy = np.square(_window()).reshape(overlap, HOP)
    signal = np.zeros((n_frames + overlap - 1, HOP), np.float32)
    weight = np.zeros_like(signal)
    for part in range(overlap):
        signal[part : part + n_frames] += pieces[:, part]
        weight[part : part + n_frames] += energy[part]
    return (signal / np.maximum(weight, 1e-3)).reshape(-1)


@functools.cache
def _window() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@functools.cache
def _mel_filters() -> np.ndarray:
    """Triangles [WINDOW // 2 + 1, n_mels] on the HTK mel scale, each of sum 1."""
    top = 2595 * np.log10(1 + MAX_HERTZ / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, N_MELS + 2) / 2595) - 1)
    # At low frequencies the scale is finer than the bins: a band is at least two bins wide, so that none is empty.
    bin_hertz = SAMPLE_RATE / WINDOW
    rise = np.maximum(hertz[1:-1] - hertz[:-2], bin_hertz)
    fall = np.maximum(hertz[2:] - hertz[1:-1], bin_hertz)
    offset = (np.arange(WINDOW // 2 + 1) * bin_hertz)[:, None] - hertz[None, 1:-1]
    triangles = np.maximum(0, np.minimum(1 + offset / rise, 1 - offset / fall))
    return (triangles / triangles.sum(axis=0)).astype(np.float32)
