"""The digit reader on espeak's speech, and the distance that its errors are counted by."""

import functools
import sys

import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.hearing import digits
from valle_jax.hearing.digits import DIGITS, edit_distance, transcribe_digits, transcribe_many

VOICES = ("en-us+edward", "en-us+f2", "en-us+klatt")


def _distance_by_definition(reference, hypothesis) -> int:
    """The recursion that defines the distance, on suffixes."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == len(reference) or j == len(hypothesis):
            return len(reference) - i + len(hypothesis) - j
        if reference[i] == hypothesis[j]:
            return distance(i + 1, j + 1)
        return 1 + min(distance(i + 1, j), distance(i, j + 1), distance(i + 1, j + 1))

    return distance(0, 0)


def test_edit_distance_equals_its_definition():
    random = np.random.default_rng(0)
    for _ in range(300):
        reference, hypothesis = (random.choice(list("abc"), random.integers(0, 9)).tolist() for _ in range(2))
        assert edit_distance(reference, hypothesis) == _distance_by_definition(reference, hypothesis)


def test_edit_distance_of_words():
    assert edit_distance(["one", "two", "three"], ["one", "three"]) == 1
    assert edit_distance(["one", "two"], ["two", "one"]) == 2
    assert edit_distance([], ["one", "two"]) == edit_distance(["one", "two"], []) == 2


@pytest.fixture(scope="module")
def spoken():
    """Twelve sequences of digit words by three voices, and the sample rate."""
    pytest.importorskip("pocketsphinx", reason="the extra `quickstart` is not installed")
    pytest.importorskip("espeakng_loader", reason="the extra `quickstart` is not installed")
    from data_prep.espeak import Espeak

    espeak, random = Espeak(), np.random.default_rng(0)
    words = [[DIGITS[digit] for digit in random.integers(0, 10, 6)] for _ in range(12)]
    audio = [espeak.say(" ".join(text), VOICES[i % 3], rate=165) for i, text in enumerate(words)]
    return words, audio, espeak.sample_rate


def test_clean_speech_is_understood(spoken):
    """The variants were chosen for being read at 0.88 or better; unrelated digits would get 0.1 to 0.3."""
    words, audio, rate = spoken
    heard = transcribe_many(audio, rate, processes=1)
    errors = sum(map(edit_distance, words, heard))
    assert errors / sum(map(len, words)) <= 0.12
    shuffled = sum(map(edit_distance, words, heard[1:] + heard[:1]))
    assert shuffled / sum(map(len, words)) >= 0.5


def test_a_reading_does_not_depend_on_what_was_read_before(spoken):
    _, audio, rate = spoken
    forwards = [transcribe_digits(samples, rate) for samples in audio[:6]]
    backwards = [transcribe_digits(samples, rate) for samples in audio[5::-1]]
    assert forwards == backwards[::-1]


def test_level_and_pauses_at_the_ends_do_not_matter(spoken):
    _, audio, rate = spoken
    pause = np.zeros(rate // 2, np.float32)
    louder, padded = 0.3 * audio[0], np.concatenate([pause, audio[0], pause])
    assert transcribe_digits(louder, rate) == transcribe_digits(audio[0], rate) == transcribe_digits(padded, rate)


@pytest.mark.parametrize("samples", [np.zeros(16_000, np.float32), np.zeros(0, np.float32)])
def test_silence_holds_no_digits(samples):
    assert transcribe_digits(samples, 16_000) == []


def test_missing_reader_is_named(monkeypatch):
    digits._decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"pip install 'valle-jax\[quickstart\]'"):
        transcribe_many([np.ones(100, np.float32)], 16_000)
