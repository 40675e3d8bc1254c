"""Stored voices: what is kept, where, and what is refused."""

import dataclasses

import numpy as np
import pytest
from random_model import TONE

from valle_jax.audio import write_audio
from valle_jax.codec import get_codec
from valle_jax.errors import UserError
from valle_jax.inference.synthesizer import Options, Request
from valle_jax.inference.voice import Voice, find_voice, list_voices, voice_path
from valle_jax.inference.voice_command import Add, complaints


@pytest.fixture
def recording(tmp_path):
    """A second of a tone."""
    write_audio(tmp_path / "tone.wav", TONE, 24000)
    return str(tmp_path / "tone.wav")


def test_a_stored_voice_is_the_prompt_it_was_made_of(tts, recording, tmp_path):
    Add("anna", recording, text="one two", voices=str(tmp_path / "voices")).run()
    voice = find_voice("anna", tmp_path / "voices")
    assert (voice.text, voice.language, voice.seconds) == ("one two", "en-us", 1.0)
    assert list(list_voices(tmp_path / "voices")) == ["anna"]
    stored, direct = (
        tts.synthesize("three", prompt=prompt, prompt_text=text)
        for prompt, text in ((voice, None), (recording, "one two"))
    )
    np.testing.assert_array_equal(stored.codes, direct.codes)
    made = tts.voice(recording, "one two")
    np.testing.assert_array_equal(made.codes, voice.codes)
    assert made.phonemes == voice.phonemes


def test_a_voice_of_that_name_stays_unless_forced(recording, tmp_path):
    Add("anna", recording, text="one", voices=str(tmp_path)).run()
    with pytest.raises(UserError, match="--force"):
        Add("anna", recording, text="two", voices=str(tmp_path)).run()
    Add("anna", recording, text="two", voices=str(tmp_path), force=True).run()
    assert find_voice("anna", tmp_path).text == "two"


def test_a_voice_of_another_codec_is_refused(tts):
    other = dataclasses.replace(get_codec("mel_rvq").info, weight_hash="other")
    voice = Voice(np.zeros((75, 8), np.uint16), "one", "wʌn", "en-us", other)
    with pytest.raises(UserError, match="the voice"):
        tts.jobs([Request("two", voice)], Options())


@pytest.mark.parametrize("name", ["../anna", "a/b", "", ".anna", "a" * 65])
def test_a_name_is_never_a_path(name):
    with pytest.raises(UserError, match="no name of a voice"):
        voice_path(name)


def test_unknown_and_damaged_voices_are_one_line(tmp_path):
    with pytest.raises(UserError, match="none yet"):
        find_voice("anna", tmp_path)
    voice_path("anna", tmp_path).write_bytes(b"no voice")
    with pytest.raises(UserError, match="is not a voice"):
        find_voice("anna", tmp_path)


def test_levels_are_judged():
    assert complaints(TONE) == []
    assert "quiet" in complaints(0.01 * TONE)[0]
    assert "clipped" in complaints(np.clip(10 * TONE, -1, 1))[0]


def test_silence_and_wrong_lengths_are_refused(tmp_path):
    for samples, message in ((np.zeros(24000), "silent"), (TONE[:2400], r"0\.10 s"), (np.tile(TONE, 21), r"21\.00 s")):
        write_audio(tmp_path / "a.wav", samples, 24000)
        with pytest.raises(UserError, match=message):
            Add("anna", str(tmp_path / "a.wav"), text="one", voices=str(tmp_path)).run()
