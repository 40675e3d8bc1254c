"""The offline recogniser on real speech."""

import sys

import pytest

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import WordRecogniser, get_recogniser, normalise


def test_normalise():
    assert normalise("It's the(2) WELL-known, “one”.") == ["it's", "the", "well", "known", "one"]
    assert normalise(" - ") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,203 men & 2nd-rate food", "one thousand two hundred and three men and second rate food"),
        ("3.5% of 21", "three point five percent of twenty one"),
        ("Café 'naïve' don't rock ’n’ roll", "cafe naive don't rock n roll"),
        ("B2 in 1803.", "b two in one thousand eight hundred and three"),
    ],
)
def test_numbers_marks_and_accents(text, words):
    pytest.importorskip("num2words")
    assert " ".join(normalise(text)) == words


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(UserError, match="num2words is not installed"):
        normalise("route 66")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match="pocketsphinx is not installed"):
        get_recogniser("pocketsphinx")


def test_recogniser_reads_speech_and_forgets_what_it_heard(speech):
    lines = (speech / "LibriSpeech/train-clean-100/19/198/19-198.trans.txt").read_text().splitlines()[:4]
    recogniser, words, wrong = WordRecogniser(), 0, 0
    heard = []
    for line in lines:
        name, _, text = line.partition(" ")
        samples = read_audio(speech / f"LibriSpeech/train-clean-100/19/198/{name}.flac", 16_000)
        heard.append(recogniser(samples, 16_000))
        words += len(normalise(text))
        wrong += edit_distance(normalise(text), heard[-1])
    assert wrong / words < 0.4  # read speech; the whole folder has 0.2 to 0.3
    assert recogniser(samples, 16_000) == heard[-1]  # whatever came before
