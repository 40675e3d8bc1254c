"""The offline recogniser on real speech."""

from valle_jax.audio import read_audio
from valle_jax.evaluation.digits import edit_distance
from valle_jax.evaluation.recognition import WordRecogniser, normalise


def test_normalise():
    assert normalise("It's the(2) WELL-known, “one”.") == ["it's", "the", "well", "known", "one"]
    assert normalise(" - ") == []


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
