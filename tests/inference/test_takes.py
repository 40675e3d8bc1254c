"""Bad takes: planted faults are found, real recordings have none."""

import json

import numpy as np
import pytest
import soundfile

from valle_jax.audio import read_audio
from valle_jax.inference.takes import (
    MAX_LETTER_SECONDS,
    MIN_LETTER_SECONDS,
    has_loop,
    problems,
)

RATE = 24_000


@pytest.fixture(scope="module")
def recordings(speech):
    """Eight utterances of LibriSpeech and eight of slow learners, with their texts."""
    found = []
    for transcript in sorted((speech / "LibriSpeech/test-other").rglob("*.trans.txt")):
        name, _, text = transcript.read_text().splitlines()[0].partition(" ")
        found.append((read_audio(transcript.parent / f"{name}.flac", RATE), text))
    for record in map(json.loads, (speech / "manifest.jsonl").read_text().splitlines()):
        if record["corpus"] == "speechocean762" and len(found) < 16:
            found.append((read_audio(speech / record["audio"], RATE), record["text"]))
    return found


def test_real_recordings_are_good_takes(recordings):
    assert [problems(samples, RATE, text) for samples, text in recordings] == [[]] * len(recordings)


def test_hardly_a_real_recording_is_of_a_bad_length(speech):
    lengths = []  # seconds, letters
    for transcript in (speech / "LibriSpeech").rglob("*.trans.txt"):
        for name, _, text in (line.partition(" ") for line in transcript.read_text().splitlines()):
            lengths.append((soundfile.info(transcript.parent / f"{name}.flac").duration, text))
    for record in map(json.loads, (speech / "manifest.jsonl").read_text().splitlines()):
        if record["corpus"] == "speechocean762":
            lengths.append((record["seconds"], record["text"]))
    seconds, letters = np.array([(t, sum(c.isalnum() for c in text)) for t, text in lengths]).T
    assert len(seconds) > 2000 and (seconds > MIN_LETTER_SECONDS * letters).all()
    assert (seconds > 1 + MAX_LETTER_SECONDS * letters).mean() <= 1e-3


@pytest.mark.parametrize("period_seconds", [0.1, 0.45, 1.0])
def test_a_loop_is_found_wherever_it_is(recordings, period_seconds):
    samples, _ = recordings[0]
    loud = np.square(samples[: 4 * RATE]).reshape(-1, RATE // 10).sum(1).argmax() * RATE // 10
    piece = samples[loud : loud + round(period_seconds * RATE)]
    looped = np.concatenate([samples[:RATE], *[piece] * round(3.2 / period_seconds), samples[RATE : 2 * RATE]])
    assert has_loop(looped, RATE)
    assert "loop" in problems(looped, RATE, "a" * 60)


def test_lengths_are_judged_by_the_text_or_the_reference(recordings):
    samples, _ = recordings[0]
    second = samples[RATE : 2 * RATE]
    assert problems(second, RATE, "a" * 20) == []
    assert problems(second, RATE, "a" * 40) == ["too_short"]
    assert problems(samples[: 6 * RATE], RATE, "a" * 5) == ["too_long"]
    assert problems(second, RATE, "a" * 40, reference_seconds=1.9) == []
    assert problems(second, RATE, "", reference_seconds=2.1) == ["too_short"]


def test_an_endless_silence_is_found_in_the_noise_of_a_room(recordings):
    samples, text = recordings[0]
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    room = noise * np.abs(samples).max() / 100
    assert problems(np.concatenate([samples, room[: 2 * RATE]]), RATE, text) == []
    for parts in ([samples, room], [room, samples], [samples[:RATE], room, samples[RATE:]]):
        assert "long_silence" in problems(np.concatenate(parts), RATE, text)


def test_silence_and_nothing_at_all():
    assert problems(np.zeros(RATE, np.float32), RATE, "hello", finished=False) == ["no_end_of_speech", "silent"]
    assert problems(np.zeros(0, np.float32), RATE, "hello") == ["silent"]
