"""Distance of two readings of one text, frame by frame after alignment in time."""

from __future__ import annotations

import numpy as np

from valle_jax.codec.mel_rvq import DECIBELS, log_mel


def mel_distortion(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean distance in dB between the log-mel frames of two waveforms, float [samples] at 24 kHz.

    The frames (75 a second, 80 bands) are aligned by dynamic time warping; of each pair, the distance is the root mean
    square over the bands. Level counts, and so does pitch where it shows as harmonics. Same waveform: 0.

    Raises:
      ValueError: a waveform without samples.
    """
    a, b = log_mel(reference) * DECIBELS, log_mel(other) * DECIBELS
    return _mean_distance(a / np.sqrt(a.shape[1]), b / np.sqrt(b.shape[1]))


def mel_cepstral_distortion(reference: np.ndarray, other: np.ndarray, cepstra: int = 13) -> float:
    """Mel-cepstral distortion in dB of two waveforms, float [samples] at 24 kHz, after dynamic time warping.

    10 / ln 10 · sqrt(2 Σ (c_k - c'_k)²) over the coefficients 1 to `cepstra` (Kubichek 1993), so that neither level nor
    harmonics count: the spectra are smoothed. The coefficients are a cosine transform of the log-mel frames.

    Raises:
      ValueError: a waveform without samples.
    """
    frames = log_mel(reference), log_mel(other)
    bands = frames[0].shape[1]
    cosines = np.cos(np.pi / bands * (np.arange(bands) + 0.5)[:, None] * np.arange(1, cepstra + 1))
    a, b = (f @ cosines * (2 / bands) * DECIBELS / np.sqrt(2) for f in frames)
    return _mean_distance(a, b)


def _mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean Euclidean distance of the frames [A, d] and [B, d] that the best path pairs."""
    if len(a) == 0 or len(b) == 0:
        raise ValueError("no samples to compare")
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    distance = np.sqrt(np.maximum(squares, 0))
    return float(np.mean([distance[i, j] for i, j in warp(distance)]))


def warp(distance: np.ndarray) -> list[tuple[int, int]]:
    """The monotone path from (0, 0) to the last pair with the least sum of distances [A, B], by steps of one frame."""
    rows, columns = distance.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(rows + columns - 1):  # what lies on one anti-diagonal does not depend on each other
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]))
        total[i + 1, j + 1] = distance[i, j] + before
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        path.append(min(steps, key=lambda step: total[step[0] + 1, step[1] + 1]))
    return path[::-1]
