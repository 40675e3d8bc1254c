"""Forced alignment: against another aligner, a planted pause, texts that do not fit, words that no dictionary has."""

import json

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.evaluation.cutting import WordCutter
from valle_jax.hearing.alignment import align
from valle_jax.hearing.pronunciation import PHONES, Pronunciations, from_ipa

RATE = 16_000


@pytest.fixture(scope="module")
def recordings(speech):
    """Samples and text of eight speakers' recordings of 2 to 3 s with at least 5 words."""
    pytest.importorskip("pocketsphinx")
    lines = map(json.loads, (speech / "manifest.jsonl").read_text().splitlines())
    fitting = [x for x in lines if 2 < x["seconds"] < 3 and len(x["text"].split()) >= 5]
    chosen = list({x["speaker"]: x for x in fitting}.values())
    return [(read_audio(speech / x["audio"], RATE), x["text"]) for x in chosen[:: len(chosen) // 8][:8]]


def test_true_texts_fit_better_than_their_words_in_another_order(recordings):
    true = [align(samples, RATE, text) for samples, text in recordings]
    turned = [align(samples, RATE, " ".join(text.split()[::-1])) for samples, text in recordings]
    for a, b, (samples, text) in zip(true, turned, recordings, strict=True):
        assert [word.label for word in a.words] == text.lower().split()
        assert a.score < 0.1  # the loop of phones is searched with a narrow beam: it may miss the best path by little
        assert b is None or b.score < a.score - 0.3
        times = [t for word in a.words for t in (word.start, word.end)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(samples) / RATE
        starts, ends = {p.start for p in a.phones}, {p.end for p in a.phones}
        assert all(word.start in starts and word.end in ends for word in a.words)
        assert {p.label for p in a.phones} <= set(PHONES)
    assert np.mean([a.score for a in true]) > -3
    assert np.mean([b.score for b in turned if b]) < -4


def test_ends_of_words_agree_with_alignment_by_whole_words(recordings):
    cutter, distances = WordCutter(), []
    for samples, text in recordings:
        ends = cutter._word_ends(samples, text.lower().split())
        if ends is not None:
            distances += [abs(w.end - end) for w, end in zip(align(samples, RATE, text).words, ends, strict=True)]
    assert len(distances) > 20 and np.median(distances) <= 0.03  # three frames: the models of phones differ


def test_a_pause_moves_the_words_behind_it(recordings):
    (a, first), (b, second) = recordings[:2]
    pause = 1e-3 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    together = align(np.concatenate([a, pause, b]), RATE, f"{first} {second}")
    n = len(first.split())
    alone = align(b, RATE, second)
    shift = (len(a) + len(pause)) / RATE
    assert together.words[n - 1].end < len(a) / RATE + 0.3 and together.words[n].start > shift - 0.3
    moved = [w.start - shift - v.start for w, v in zip(together.words[n:], alone.words, strict=True)]
    assert np.median(np.abs(moved)) <= 0.02  # of the mean that the channel is normalised by


def test_words_that_the_dictionary_lacks(recordings):
    pytest.importorskip("phonemizer")
    samples, text = recordings[0]
    words = text.lower().split()
    odd = [w if i else "zyxgor" for i, w in enumerate(words)]
    known, unknown = align(samples, RATE, text), align(samples, RATE, " ".join(odd))
    assert [p.label for p in unknown.phones][:6] == ["Z", "IH", "K", "S", "G", "ER"]
    assert unknown.score < known.score
    assert unknown.words[-1] == known.words[-1]
    assert align(samples, RATE, text) == known  # whatever came before


def test_what_cannot_be_aligned(recordings, monkeypatch):
    samples, text = recordings[0]
    assert align(samples[: RATE // 2], RATE, text) is None  # a phone takes 30 ms at least
    assert align(np.zeros(RATE, np.float32), RATE, text) is None
    assert align(samples, RATE, " ?! ") is None
    assert align(samples[:0], RATE, text) is None
    monkeypatch.setattr("valle_jax.hearing.pronunciation._phonemizer", _not_installed)
    with pytest.raises(UserError, match="text front end"):
        align(samples, RATE, "zyxgorian")


def _not_installed():
    raise UserError("the text front end is not installed")


def test_all_pronunciations_of_the_dictionary_are_used():
    listed = {"read": "R EH D", "read(2)": "R IY D", "read(4)": "X"}
    assert Pronunciations(listed.get)("read") == (("R", "EH", "D"), ("R", "IY", "D"))


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        ("nˈɔːɹθæŋɚ", "N AO R TH AE NG ER"),
        ("jˌuːnɪvˈɜːsᵻɾi", "Y UW N IH V ER S IH T IY"),
        ("dʒˈʌdʒɪŋ", "JH AH JH IH NG"),
        ("nˈeɪtʃɚ", "N EY CH ER"),
        ("bˈʌʔn̩", "B AH T AH N"),
        ("", ""),
    ],
)
def test_arpabet_of_ipa(ipa, phones):
    assert from_ipa(ipa) == tuple(phones.split())
