"""The work behind the page: takes that are those of synthesis, mistakes in one line, pictures."""

import dataclasses

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread
from random_model import TONE

from valle_jax.demo.picture import draw_take
from valle_jax.demo.speaking import heard, read_recording, speak
from valle_jax.errors import UserError
from valle_jax.inference.request import Options

OPTIONS = Options(best_of=3, tries=1)


@pytest.fixture(scope="module")
def voice(tts):
    """That of a tone."""
    return tts.voice(TONE, "one two")


@pytest.fixture(scope="module")
def takes(tts, voice):
    """Three takes of a text."""
    return speak(tts, "three", voice, seed=5, options=OPTIONS)


def test_the_takes_are_those_of_synthesis(tts, voice, takes):
    first = tts.synthesize("three", prompt=voice, seed=5, options=dataclasses.replace(OPTIONS, best_of=1))
    np.testing.assert_array_equal(takes.audios[0].codes, first.codes)
    np.testing.assert_array_equal(takes.audios[0].samples, first.samples)
    assert takes.audios[0].info["problems"] == first.info["problems"]
    best = tts.synthesize("three", prompt=voice, seed=5, options=OPTIONS)
    np.testing.assert_array_equal(takes.audios[takes.best].codes, best.codes)
    assert len({audio.codes.tobytes() for audio in takes.audios}) == 3


def test_too_long_a_text_is_one_line(tts, voice):
    for text in ("three " * 40, "three " * 4000):
        with pytest.raises(UserError, match=r"too long|split the text"):
            speak(tts, text, voice, seed=0, options=OPTIONS)


def test_recordings_are_resampled_and_have_a_longest_length(tts, tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, 16000)
    assert len(read_recording(tts, tmp_path / "a.wav")) == pytest.approx(1.5 * len(TONE), abs=10)
    soundfile.write(tmp_path / "a.wav", np.tile(TONE, 14), 16000)
    with pytest.raises(UserError, match="more than 20 s"):
        read_recording(tts, tmp_path / "a.wav")


def test_what_is_no_audio_is_named_without_its_path(tts, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(UserError, match="cannot read audio the recording"):
        read_recording(tts, tmp_path / "a.wav")


def test_a_recording_without_words_asks_for_a_transcript(tts):
    with pytest.raises(UserError, match="hears no words"):
        heard(tts, np.zeros_like(TONE), "pocketsphinx")


def test_pictures_of_a_take_and_of_an_empty_one(takes, tmp_path):
    audio = takes.audios[0]
    empty = dataclasses.replace(audio, samples=audio.samples[:0], codes=audio.codes[:0])
    pictures = []
    for number, take in enumerate((audio, empty)):
        draw_take(tmp_path / f"{number}.png", take, audio.info["seconds"])
        pictures.append(imread(tmp_path / f"{number}.png"))
    assert pictures[0].shape == pictures[1].shape == (960, 900, 4)
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.05
