"""Streaming against synthesis at once: the same codebook 1, frozen frames, the whole where all is waited for."""

import dataclasses
import json

import numpy as np
import pytest
from random_model import TONE

from valle_jax.audio import read_audio, write_audio
from valle_jax.cli import main
from valle_jax.errors import UserError
from valle_jax.inference import streaming
from valle_jax.inference.generate import generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.streaming import Pace, StreamDecoder
from valle_jax.inference.synthesizer import Options, Request

TEXT = "three four one two three four"
VOICE = {"prompt": TONE, "prompt_text": "one two"}
LONG = Options(min_rate_ratio=0.4, max_rate_ratio=0.5, tries=1)  # 90 to 113 frames; a stream is one try
PACE = Pace(first_frames=10, chunk_frames=40, lookahead_frames=5)


@pytest.mark.parametrize("sampling", [Sampling(top_p=0.95), Sampling(top_k=50, guidance=2.0, repetition_window=4)])
def test_codebook_1_is_that_of_synthesis_at_once(tts, sampling):
    options = dataclasses.replace(LONG, sampling=sampling)
    for seed in (0, 1):
        chunks = list(tts.stream(TEXT, **VOICE, seed=seed, options=options, pace=PACE))
        whole = tts.synthesize(TEXT, **VOICE, seed=seed, options=options)
        codes = np.concatenate([chunk.codes for chunk in chunks])
        np.testing.assert_array_equal(codes[:, 0], whole.codes[:, 0])
        assert [len(chunk.codes) for chunk in chunks][:3] == [10, 20, 40]
        assert all(len(chunk.samples) == 320 * len(chunk.codes) for chunk in chunks)
        info = chunks[-1].info
        assert [chunk.info for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert info["frames"] == len(codes) == whole.info["frames"] and info["finished"] == whole.info["finished"]
        assert info["log_probability"] == pytest.approx(whole.info["log_probability"], abs=1e-6)
        assert ("no_end_of_speech" in info["problems"]) == (not info["finished"])
        assert info["seconds"] == len(codes) / 75 and info["first_audio_seconds"] > 0


def test_a_lookahead_over_the_whole_utterance_gives_the_whole(tts):
    """Codes and samples, exactly."""
    (chunk,) = tts.stream(TEXT, **VOICE, options=LONG, pace=Pace(lookahead_frames=10_000))
    whole = tts.synthesize(TEXT, **VOICE, options=LONG)
    np.testing.assert_array_equal(chunk.codes, whole.codes)
    np.testing.assert_array_equal(chunk.samples, whole.samples)


@pytest.fixture(scope="module")
def drawn(tts):
    """A job and a codebook 1 for it."""
    (job,) = tts.jobs([Request(TEXT, TONE, "one two")], LONG)
    return job, np.random.default_rng(0).integers(0, 1024, 120).astype(np.int32)


def test_chunks_do_not_depend_on_what_was_drawn_behind_the_lookahead(tts, drawn):
    job, codes = drawn
    other = np.concatenate([codes[:15], codes[:105]])
    a, b = (StreamDecoder(tts, job, LONG, PACE) for _ in range(2))
    assert a.wanted_frames == 15
    first, same = a.next(codes[:15], last=False), b.next(other, last=False)
    np.testing.assert_array_equal(first.codes, same.codes)
    np.testing.assert_array_equal(first.samples, same.samples)
    assert a.wanted_frames == 35
    assert (a.next(codes, last=False).codes != b.next(other, last=False).codes).any()


def test_an_end_at_the_end_of_a_chunk_adds_nothing(tts, drawn):
    job, codes = drawn
    decoder = StreamDecoder(tts, job, LONG, Pace(10, 10, 0))
    decoder.next(codes[:10], last=False)
    rest = decoder.next(codes[:10], last=True)
    assert len(rest.samples) == len(rest.codes) == 0


def test_frozen_frames_stay_and_are_seen(tts, drawn):
    job, codes = drawn
    frozen = np.random.default_rng(1).integers(0, 1024, (60, 8)).astype(np.int32)
    codes = np.concatenate([frozen[:, 0], codes[60:]])
    (free,), (held,) = (tts.fill([job], [codes], LONG, frozen=known) for known in (None, [frozen]))
    np.testing.assert_array_equal(held[:60], frozen)
    np.testing.assert_array_equal(held[:, 0], codes)
    assert (held[60:] != free[60:]).any()


def test_chunks_share_programs(tts):
    """One for drawing, and one for filling in each bucket of 64 tokens that the utterance grows through."""
    list(tts.stream(TEXT, **VOICE, options=LONG, pace=PACE))
    compiled = streaming._begin._cache_size(), streaming._go_on._cache_size(), generate_nar._cache_size()
    chunks = list(tts.stream(TEXT, **VOICE, seed=0, options=LONG, pace=Pace(5, 10, 5)))
    assert len(chunks) > 10
    grown = streaming._begin._cache_size(), streaming._go_on._cache_size(), generate_nar._cache_size()
    assert grown[:2] == compiled[:2]
    assert grown[2] <= compiled[2] + 4


def test_what_cannot_be_streamed_is_refused_at_once(tts, monkeypatch):
    with pytest.raises(UserError, match="best_of must be 1"):
        tts.stream(TEXT, **VOICE, options=Options(best_of=2))
    with pytest.raises(UserError, match="no phonemes"):
        tts.stream("...", **VOICE)
    for wrong in ({"first_frames": 0}, {"first_frames": 9, "chunk_frames": 8}, {"lookahead_frames": -1}):
        with pytest.raises(UserError, match="frames"):
            Pace(**wrong)
    monkeypatch.delattr(type(tts.codec), "stream")
    with pytest.raises(UserError, match="mel_rvq decodes whole utterances only"):
        tts.stream(TEXT, **VOICE)


def test_the_command_writes_the_stream(model_dir, tts, tmp_path, capsys):
    write_audio(tmp_path / "voice.wav", TONE, 24_000)
    arguments = ["--model", str(model_dir), "--text", "three", "--seed", "2", "--stream", "--prompt-text", "one two"]
    main(["synthesize", *arguments, "--prompt", str(tmp_path / "voice.wav"), "--out", str(tmp_path / "out.wav")])
    info = json.loads(capsys.readouterr().out)
    assert info["first_audio_seconds"] > 0 and info["seed"] == 2
    samples = read_audio(tmp_path / "out.wav", 24_000)
    assert len(samples) == 320 * info["frames"]
    chunks = tts.stream("three", prompt=tmp_path / "voice.wav", prompt_text="one two", seed=2)
    expected = np.clip(np.concatenate([chunk.samples for chunk in chunks]), -1, 1)
    np.testing.assert_allclose(samples, expected, atol=2 / 2**15)  # 16 bits
