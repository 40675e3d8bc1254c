"""Mel distortion: the alignment against all paths, and sounds whose distance is known."""

import numpy as np
import pytest

from valle_jax.codec.mel_rvq import SAMPLE_RATE
from valle_jax.evaluation.spectral import mel_distortion, warp


def _least_sum(distance: np.ndarray, i: int = 0, j: int = 0) -> float:
    """The least sum over every monotone path from (i, j) to the end, each followed to its end."""
    rows, columns = distance.shape
    steps = [(i + di, j + dj) for di, dj in ((1, 1), (1, 0), (0, 1)) if i + di < rows and j + dj < columns]
    return distance[i, j] + (min(_least_sum(distance, *step) for step in steps) if steps else 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4), (6, 4), (3, 7)])
def test_warp_is_the_best_of_all_paths(shape):
    distance = np.random.default_rng(sum(shape)).random(shape)
    path = warp(distance)
    assert path[0] == (0, 0) and path[-1] == (shape[0] - 1, shape[1] - 1)
    assert {tuple(step) for step in np.diff(path, axis=0)} <= {(1, 1), (1, 0), (0, 1)}
    assert sum(distance[pair] for pair in path) == pytest.approx(_least_sum(distance))


def _sounds(pitches, seconds_each: float) -> np.ndarray:
    """Buzzes one after the other, in a little noise so that no band is empty."""
    time = np.arange(round(seconds_each * SAMPLE_RATE)) / SAMPLE_RATE
    buzzes = [sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 30)) for pitch in pitches]
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(time) * len(pitches))
    return (0.1 * np.concatenate(buzzes) + noise).astype(np.float32)


PITCHES = (110, 240, 150, 320, 190)


def test_same_waveform_is_at_distance_0():
    sound = _sounds(PITCHES, 0.2)
    # Distances are roots of differences of squares of order 1e5 in float32.
    assert mel_distortion(sound, sound) == pytest.approx(0, abs=0.2)


def test_level_counts_in_decibels():
    noise = 0.2 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    # The features' floor, about 40 dB below this noise, takes some hundredths of a decibel off.
    assert mel_distortion(noise, noise / 2) == pytest.approx(20 * np.log10(2), abs=0.2)


def test_time_stretch_is_small_and_another_order_is_not():
    sound, slower = _sounds(PITCHES, 0.2), _sounds(PITCHES, 0.26)
    other = _sounds((320, 110, 240, 190, 150), 0.2)
    assert mel_distortion(sound, slower) < 0.35 * mel_distortion(sound, other)


def test_both_directions_agree():
    a, b = _sounds(PITCHES, 0.1), _sounds(PITCHES[::-1], 0.15)
    assert mel_distortion(a, b) == pytest.approx(mel_distortion(b, a), rel=1e-3)


def test_empty_waveforms_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        mel_distortion(np.zeros(0, np.float32), np.ones(2400, np.float32))
