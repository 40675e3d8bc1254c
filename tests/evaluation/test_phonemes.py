"""Phones heard and fit of the text on real speech."""

import json

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.evaluation.choose import OFFLINE, get_measures
from valle_jax.evaluation.phonemes import AlignmentScore, PhonemeErrors
from valle_jax.evaluation.sample import Sample

RATE = 16_000


@pytest.fixture(scope="module")
def right(speech):
    """Four recordings of 2 to 4 s of one reader with their texts."""
    pytest.importorskip("pocketsphinx")
    lines = map(json.loads, (speech / "manifest.jsonl").read_text().splitlines())
    chosen = [x for x in lines if x["corpus"] == "pm" and 2 < x["seconds"] < 4][:4]
    return [Sample(x["audio"], "pm", x["text"], read_audio(speech / x["audio"], RATE), RATE) for x in chosen]


@pytest.fixture(scope="module")
def wrong(right):
    """The same recordings with each other's texts."""
    texts = [sample.text for sample in right]
    return [
        Sample(s.trial, s.speaker, text, s.audio, RATE) for s, text in zip(right, texts[1:] + texts[:1], strict=True)
    ]


def _figures(measure, samples):
    values = measure.measure(samples)
    return {f.name: f.estimate(values, [s.trial for s in samples]) for f in measure.figures}


def test_phoneme_errors_of_right_and_wrong_texts(right, wrong):
    measure = PhonemeErrors()
    good, bad = (_figures(measure, samples)["per"].value for samples in (right, wrong))
    assert good < 0.7  # a loop of phones mishears many: it made 0.6 on these when this was written
    assert bad > good + 0.25
    assert measure.measure(right[:1]) == measure.measure(right[:1])  # whatever came before


def test_phonemes_are_the_dictionarys(right):
    silent = Sample("0", "s", "The cat's 2 hats", 0 * right[0].audio, RATE)
    pytest.importorskip("num2words")
    (values,) = PhonemeErrors().measure([silent])
    assert values == {"phoneme_errors": 12, "phonemes": 12, "heard_phonemes": ""}  # DH AH, K AE T S, T UW, HH AE T S


def test_alignment_score_of_right_and_wrong_texts(right, wrong):
    measure = AlignmentScore()
    good = _figures(measure, right)
    assert good["unaligned"].value == 0 and good["alignment_score"].value > -2.5
    for a, b in zip(measure.measure(right), measure.measure(wrong), strict=True):
        assert b["unaligned"] == 1 or b["alignment_score"] < a["alignment_score"] - 1
    silent = Sample("0", "s", "anything", np.zeros(RATE, np.float32), RATE)
    assert measure.measure([silent]) == [{"unaligned": 1.0}]


def test_they_are_chosen_by_name_and_not_by_default():
    pytest.importorskip("pocketsphinx")
    names = [PhonemeErrors.name, AlignmentScore.name]
    assert [type(m) for m in get_measures(names, 8)] == [PhonemeErrors, AlignmentScore]
    assert not set(names) & set(OFFLINE)
    with pytest.raises(UserError, match=r"known: .*phonemes_pocketsphinx"):
        get_measures(["phonemes"], 8)
