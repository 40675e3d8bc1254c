"""Measures on known answers: planted errors, a recording against itself, voices exchanged."""

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.evaluation.measures import BadTakes, Duration, Similarity, SpectralDistortion, WordErrors
from valle_jax.evaluation.sample import Sample
from valle_jax.hearing.similarity import MelStatistics, get_voice

RATE = 16_000


def _figures(measure, samples):
    values = measure.measure(samples)
    estimates = {f.name: f.estimate(values, [s.trial for s in samples]) for f in measure.figures}
    return {name: estimate.value for name, estimate in estimates.items() if estimate}


class Dictation:
    """Hears what it is told to, in order: the errors are known."""

    name = "dictation"

    def __init__(self, heard):
        self._heard = iter(heard)

    def transcribe(self, audio, sample_rate):
        return [next(self._heard) for _ in audio]


def test_planted_word_errors_are_counted_exactly():
    texts = ["The cat sat on the mat.", "It's 2 o'clock!", "Yes."]
    heard = ["the cat sat on mat", "its two o'clock now", ""]  # a deletion; a substitution, an insertion; a deletion
    samples = [Sample(str(i), "s", text, np.ones(10, np.float32), RATE) for i, text in enumerate(texts)]
    measure = WordErrors(Dictation(heard))
    values = measure.measure(samples)
    assert [(v["word_errors"], v["words"]) for v in values] == [(1, 6), (2, 3), (1, 1)]
    assert [(v["letter_errors"], v["letters"]) for v in values] == [(4, 22), (1 + 4, 16), (3, 3)]
    assert values[1]["heard"] == "its two o'clock now"
    assert _figures(WordErrors(Dictation(heard)), samples) == pytest.approx({"wer": 4 / 10, "cer": 12 / 41})


@pytest.fixture(scope="module")
def two_voices(speech):
    """Two clips of 2.5 s of each of two speakers of LibriSpeech."""
    clips = {}
    for speaker in ("19", "26"):
        paths = sorted((speech / "LibriSpeech/train-clean-100" / speaker).rglob("*.flac"))[2:4]
        clips[speaker] = [read_audio(path, RATE)[RATE // 2 : 3 * RATE] for path in paths]
    return clips


def test_similarity_to_itself_is_1_and_falls_with_another_voice(two_voices):
    torch = pytest.importorskip("torch")
    pytest.importorskip("resemblyzer")
    torch.set_num_threads(1)  # its threads wait for each other on a busy machine: 30 times slower
    measure = Similarity(get_voice("resemblyzer"))
    (a, a2), (b, _) = two_voices.values()
    samples = [
        Sample("0", "19", "", a, RATE, prompt=a, prompt_resynthesised=a2, reference=b),
        Sample("1", "19", "", np.zeros(RATE, np.float32), RATE, prompt=a),
        Sample("2", "19", "", a, RATE),
    ]
    first, silent, nothing = measure.measure(samples)
    assert first["similarity_prompt"] == pytest.approx(1, abs=1e-5)
    # Measured: 0.8 and more for one voice, 0.5 to 0.65 for these two.
    assert first["similarity_prompt_resynthesised"] > first["similarity_reference"] + 0.1
    assert silent == {"similarity_prompt": 0.0} and nothing == {}
    assert set(_figures(measure, samples)) == {f.name for f in measure.figures}


def test_a_voice_that_needs_standardising_is_refused():
    with pytest.raises(ValueError, match="KnownVoices"):
        Similarity(MelStatistics())


def test_a_recording_against_itself_and_against_another(two_voices):
    (a, _), (b, _) = two_voices.values()
    samples = [Sample("0", "s", "", a, RATE, reference=a), Sample("1", "s", "", a, RATE)]
    itself, alone = SpectralDistortion().measure(samples)
    # Distances are roots of differences of squares of order 1e5 in float32.
    assert itself == pytest.approx({"mel_cepstral_distortion": 0, "mel_distortion": 0}, abs=0.2)
    assert alone == {}
    other = _figures(SpectralDistortion(), [Sample("0", "s", "", a, RATE, reference=b)])
    assert other["mel_cepstral_distortion"] > 3 and other["mel_distortion"] > 5


def test_duration_ratio():
    second = np.ones(RATE, np.float32)
    samples = [Sample(str(i), "s", "", second[: RATE * i // 4], RATE, reference=second) for i in (1, 2, 4)]
    assert _figures(Duration(), samples) == {"duration_ratio": 0.5}
    assert Duration().measure([Sample("0", "s", "", second, RATE)]) == [{"seconds": 1.0}]


def test_shares_of_bad_takes():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    samples = [
        Sample("good", "s", "a short one", noise, RATE),
        Sample("endless", "s", "a short one", noise, RATE, info={"finished": False}),
        Sample("silent", "s", "a short one", 0 * noise, RATE),
        Sample("short", "s", "a short one", noise[: RATE // 4], RATE, reference=noise),
    ]
    figures = _figures(BadTakes(), samples)
    assert figures["bad_takes"] == 0.75
    assert {k: v for k, v in figures.items() if k != "bad_takes"} == {
        "no_end_of_speech": 0.25,
        "silent": 0.25,
        "long_silence": 0,
        "too_short": 0.25,
        "too_long": 0,
        "loop": 0,
    }
