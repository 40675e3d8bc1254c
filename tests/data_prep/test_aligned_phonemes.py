"""From word times to start frames of phonemes, on made examples."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_prep.alignment import phoneme_frames
from valle_jax.hearing.recognition import normalise
from valle_jax.text.phonemizer import Phonemizer

ALONE = {"one": "wˈʌn", "of": "ˈʌv", "the": "ðə", "two": "tˈuː", "um": "ˈʌm"}


def frames(phonemes, words, n_frames=100):
    found = phoneme_frames(phonemes, words, ALONE, 10.0, n_frames)
    return None if found is None else list(zip(phonemes, found.tolist(), strict=True))


def test_symbols_follow_evenly_inside_their_word_and_pauses_belong_to_the_space():
    found = frames("wˈʌn, tˈuː.", [("one", 1.0, 1.8), ("two", 3.0, 3.4)])
    assert [symbol for symbol, _ in found] == list("wˈʌn, tˈuː.")
    assert [frame for _, frame in found] == [10, 12, 14, 16, 18, 18, 30, 31, 32, 33, 34]


def test_words_that_are_said_as_one():
    found = frames("wˈʌn ʌvðə tˈuː", [("one", 0, 0.4), ("of", 0.4, 0.6), ("the", 0.6, 0.8), ("two", 1.0, 1.4)])
    starts = dict(zip(("ʌ2", "v", "ð", "ə", "space", "t"), [frame for _, frame in found][5:11], strict=True))
    assert starts == {"ʌ2": 4, "v": 5, "ð": 6, "ə": 7, "space": 8, "t": 10}


def test_words_that_are_not_said():
    found = frames("wˈʌn tˈuː", [("one", 0, 0.4), ("um", 0.4, 0.9), ("two", 1.0, 1.4)])
    assert found[5] == ("t", 10)
    assert frames("...", [("one", 0, 1)]) is None and frames("wˈʌn", []) is None
    assert frames("wˈʌn", [("one", 0.0, 99.0)], n_frames=20)[-1] == ("n", 19)


@hypothesis.given(
    st.text(alphabet="wʌntuːˈ ,.", max_size=40),
    st.lists(st.tuples(st.sampled_from(sorted(ALONE)), st.integers(0, 9), st.integers(0, 9)), max_size=8),
)
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_any_string_gets_ascending_frames(phonemes, lengths):
    times = np.cumsum([part for _, *both in lengths for part in both]).reshape(-1, 2) / 10
    words = [(word, float(start), float(end)) for (word, *_), (start, end) in zip(lengths, times, strict=True)]
    found = phoneme_frames(phonemes, words, ALONE, 10.0, 50)
    if found is not None:
        assert len(found) == len(phonemes) and found.dtype == np.int32
        assert found.min() >= 0 and found.max() < 50 and (np.diff(found) >= 0).all()


def test_words_of_real_sentences_are_found(speech):
    """Words of one second each: espeak's begin at whole seconds, although it joins some and reads all in context."""
    pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
    lines = (speech / "LibriSpeech/test-other/367/test-other-367.trans.txt").read_text().splitlines()[:20]
    texts = [line.partition(" ")[2] for line in lines]
    phonemizer = Phonemizer("en-us")
    found = []
    for text, phonemes in zip(texts, phonemizer(texts), strict=True):
        words = normalise(text)
        timed = [(word, float(i), i + 1.0) for i, word in enumerate(words)]
        starts = phoneme_frames(phonemes, timed, dict(zip(words, phonemizer(words), strict=True)), 100.0, 10**6)
        found += [starts[i] % 100 == 0 for i, before in enumerate(" " + phonemes[:-1]) if before == " "]
    assert len(found) > 200 and np.mean(found) > 0.98
