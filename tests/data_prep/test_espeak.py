"""espeak-ng through its library: speech that follows its settings and repeats in a new process."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the extra `quickstart` is not installed")

from data_prep import espeak, synthetic
from data_prep.espeak import Espeak, variants
from valle_jax.errors import UserError
from valle_jax.hearing.similarity import SAMPLE_RATE, pitch, resample

TEXT = "one two three four"


@pytest.fixture(scope="module")
def voice():
    return Espeak()


def test_speech_is_float32_in_range(voice):
    samples = voice.say(TEXT, "en-us")
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert 0.1 < np.abs(samples).max() <= 1
    assert voice.sample_rate == 22_050
    assert 0.5 < len(samples) / voice.sample_rate < 4


def test_rate_is_words_per_minute(voice):
    slow, fast = (len(voice.say(TEXT, "en-us", rate=rate)) for rate in (120, 240))
    # Half the duration, but for pauses that espeak shortens less.
    assert 1.5 < slow / fast < 2.5


def test_pitch_rises(voice):
    def median_hertz(value: int) -> float:
        samples = resample(voice.say(TEXT, "en-us+m1", pitch=value, pitch_range=20), voice.sample_rate, SAMPLE_RATE)
        return float(np.median(pitch(samples, len(samples) // 320)))

    low, middle, high = (median_hertz(value) for value in (20, 50, 80))
    assert low * 1.1 < middle < high / 1.1


def test_empty_text_is_silence(voice):
    assert np.abs(voice.say("", "en-us")).max(initial=0) < 1e-3


def test_unknown_voice(voice):
    with pytest.raises(UserError, match="no voice 'en-us-nowhere'"):
        voice.say(TEXT, "en-us-nowhere")


def test_every_variant_of_the_corpus_exists():
    of_corpus = synthetic.TRAINING_VARIANTS + synthetic.VALIDATION_VARIANTS + synthetic.TEST_VARIANTS
    assert {variant.name for variant in of_corpus} <= set(variants())


def test_a_new_process_says_the_same():
    first, again = (_spawned(_say_some) for _ in range(2))
    assert [samples.tobytes() for samples in first] == [samples.tobytes() for samples in again]


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'valle-jax\[quickstart\]'"):
        espeak.variants()


def _spawned(function):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function).result()


def _say_some() -> list[np.ndarray]:
    """Voices with breath noise and flutter, which are random in the library."""
    voice = Espeak()
    return [voice.say(TEXT, name) for name in ("en-us+f2", "en-us+whisper", "en-us+croak")]
