"""Quality of recordings: each measure on audio of which it is known."""

import numpy as np
import pytest

from data_prep.filters import Filters, clipped_share, estimated_snr, frame_decibels, silent_share
from valle_jax.errors import UserError

RATE = 16_000


def bursts(seed=0, seconds=8.0):
    """White noise in syllables: 150 ms on, 100 ms off, of power 1 while it is on."""
    time = np.arange(int(seconds * RATE)) / RATE
    return np.random.default_rng(seed).standard_normal(len(time)) * (time % 0.25 < 0.15)


def noise(decibels, seed=1, seconds=8.0):
    return 10 ** (decibels / 20) * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


@pytest.mark.parametrize("snr", [5, 10, 20, 30, 40])
def test_snr_of_known_noise(snr):
    measured = estimated_snr(frame_decibels(0.1 * (bursts() + noise(-snr)), RATE))
    # 320 samples a frame: a frame's power varies by 0.35 dB (1 sigma); percentiles 95 and 10 lie 1.6 and 0.8 sigma out
    assert measured == pytest.approx(snr, abs=2.0)


def test_silent_share():
    audio = np.concatenate([noise(0, seconds=3.0), noise(-50, seconds=1.0)])
    assert silent_share(frame_decibels(audio, RATE)) == pytest.approx(0.25, abs=0.01)
    assert silent_share(frame_decibels(noise(0), RATE)) == 0


def test_clipped_share():
    sine = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE)
    assert clipped_share(0.9 * sine) == 0
    # |2 sin| >= 1 for two thirds of the time
    assert clipped_share(np.clip(2 * sine, -1, 1)) == pytest.approx(2 / 3, abs=0.02)
    lone = 0.1 * sine
    lone[500] = 1.0
    assert clipped_share(lone) == 0


def test_rules():
    clean = 0.1 * bursts()
    assert Filters().of_audio(np.clip(9 * clean, -1, 1), RATE) is None and Filters().of_text(1, 60.0) is None
    assert Filters(max_clipped=0.01, max_silence=0.9, min_snr=20).of_audio(clean, RATE) is None
    assert Filters(max_clipped=0.01).of_audio(np.clip(30 * clean, -1, 1), RATE).reason == "clipped"
    assert Filters(max_silence=0.1).of_audio(clean, RATE).reason == "much silence"
    assert Filters(min_snr=20).of_audio(clean + 0.1 * noise(-10), RATE).reason == "noisy"
    rates = Filters(min_phonemes_per_second=5, max_phonemes_per_second=25)
    assert rates.of_text(100, 10.0) is None
    assert rates.of_text(40, 10.0).reason == "too few phonemes"
    rejection = rates.of_text(300, 10.0)
    assert (rejection.reason, rejection.detail) == ("too many phonemes", "30.0 a second, more than 25")


def test_wrong_numbers():
    with pytest.raises(UserError, match=r"--filters\.max-silence is a share"):
        Filters(max_silence=3)
    with pytest.raises(UserError, match="must be positive"):
        Filters(max_speaker_hours=0)
