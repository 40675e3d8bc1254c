"""The shipped codec, and sounds that use much of it."""

import numpy as np
import pytest

from valle_jax.codec import get_codec
from valle_jax.codec import mel_rvq as mel
from valle_jax.codec.mel_rvq import MelRVQ


@pytest.fixture(scope="module")
def codec() -> MelRVQ:
    return get_codec("mel_rvq")


@pytest.fixture(scope="module")
def babble() -> np.ndarray:
    """4 s that are voiced and noisy in turns, so that many codes are used."""
    rng = np.random.default_rng(0)
    time = np.arange(4 * mel.SAMPLE_RATE) / mel.SAMPLE_RATE
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time)
    voice = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / mel.SAMPLE_RATE) / k for k in range(1, 20))
    noise = rng.normal(size=len(time))
    gate = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    return (0.08 * gate * voice + 0.03 * (1 - gate) * noise).astype(np.float32)
