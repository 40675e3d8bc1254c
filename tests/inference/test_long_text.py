"""Long texts: pieces that fit and say every word once, pauses at the joints, sliding prompts, repeats."""

import dataclasses
import json

import numpy as np
import pytest
from random_model import TONE

from valle_jax.audio import read_audio, write_audio
from valle_jax.cli import main
from valle_jax.errors import UserError
from valle_jax.inference.joints import Joiner, join, repeats, speech_span
from valle_jax.inference.long_text import Reading, cut, fits, stream_long, synthesize_long
from valle_jax.inference.streaming import Pace
from valle_jax.inference.synthesizer import Options, Request

TEXT = """One two three. Four, five, six and seven! "Eight nine ten?" Eleven twelve.

Mr. Thirteen has fifteen: sixteen seventeen, eighteen nineteen and twenty one, twenty two or twenty three.
"""
SHORT = Reading(piece_seconds=2.5)
FAST = Options(min_rate_ratio=0.1, max_rate_ratio=0.15)


@pytest.fixture(scope="module")
def voice(tts):
    """A voice of 1 s, 15 symbols and so 5 frames a symbol."""
    return tts.voice(TONE, "one two three")


def _symbols(tts, text):
    return len(tts.phonemes([text])[0])


def test_pieces_are_whole_sentences_where_they_fit_and_hold_every_word_once(tts, voice):
    pieces = cut(tts, TEXT, voice, SHORT)
    assert " ".join(piece.text for piece in pieces) == " ".join(TEXT.split())
    most = 2.5 * _symbols(tts, voice.text) / voice.seconds
    assert all(_symbols(tts, piece.text) <= most for piece in pieces)
    endings = {0.35: '.!?"', 0.8: ".", 0.12: ":,"}
    assert all(piece.text[-1] in endings[piece.pause_seconds] for piece in pieces)
    assert [piece.pause_seconds for piece in pieces].count(0.8) == 2  # the paragraphs' ends
    (whole,) = cut(tts, "One two three. Four.", voice, Reading())
    assert whole.text == "One two three. Four."
    words = cut(tts, "one two three four five six seven eight nine ten eleven twelve", voice, SHORT)
    assert len(words) > 1 and all(_symbols(tts, piece.text) <= most for piece in words)


def test_what_fits_is_said_at_once_and_pieces_always_fit(tts, voice):
    """Of 600 tokens; a sliding prompt leaves half of the room."""
    assert fits(tts, "four five", voice) and not fits(tts, TEXT, voice)
    for prompt in ("same", "sliding"):
        pieces = cut(tts, TEXT, voice, Reading(prompt, piece_seconds=100.0))
        jobs = tts.jobs([Request(piece.text, voice) for piece in pieces], Options(min_rate_ratio=1.25))
        assert len(jobs) == len(pieces) > 1
    long_voice = tts.voice(np.tile(TONE, 7), "one two three four five six seven")
    with pytest.raises(UserError, match=r"use a shorter prompt$"):
        cut(tts, TEXT, long_voice)
    with pytest.raises(UserError, match="no sliding one"):
        cut(tts, TEXT, long_voice, Reading("sliding"))
    with pytest.raises(UserError, match="no phonemes"):
        cut(tts, "—\n\n...", voice)


def test_the_whole_is_the_pieces_with_their_pauses(tts, voice):
    audio = synthesize_long(tts, TEXT, voice=voice, seed=3, options=FAST, reading=SHORT)
    pieces = cut(tts, TEXT, voice, SHORT)
    rows = audio.info["pieces"]
    alone = tts.synthesize_batch([Request(piece.text, voice) for piece in pieces], seed=3, options=FAST)
    np.testing.assert_array_equal(audio.codes, np.concatenate([part.codes for part in alone]))
    assert [row["text"] for row in rows] == [piece.text for piece in pieces]
    for row, following, piece in zip(rows, rows[1:], pieces, strict=False):
        assert following["start_seconds"] - row["end_seconds"] == pytest.approx(piece.pause_seconds, abs=1e-3)
    assert audio.info["frames"] == len(audio.codes) == sum(row["frames"] for row in rows)
    assert audio.info["seconds"] == len(audio.samples) / 24_000
    assert set(audio.info["problems"]) == {problem for row in rows for problem in row["problems"]}


@pytest.mark.parametrize("prompt", ["same", "sliding"])
def test_a_long_stream_has_the_pieces_and_their_pauses(tts, voice, prompt):
    """The first while it is drawn, so by other chunks of the NAR, and not again where it is bad."""
    reading = dataclasses.replace(SHORT, prompt=prompt)
    options = dataclasses.replace(FAST, tries=1)
    whole = synthesize_long(tts, TEXT, voice=voice, seed=3, options=options, reading=reading)
    chunks = list(stream_long(tts, TEXT, voice=voice, seed=3, options=options, reading=reading, pace=Pace(2, 4, 1)))
    info, rows = chunks[-1].info, chunks[-1].info["pieces"]
    assert all(chunk.info is None for chunk in chunks[:-1])
    first = rows[0]["frames"]
    n_first = len(chunks) - (len(rows) - 1)
    assert n_first > 1 and sum(len(chunk.codes) for chunk in chunks[:n_first]) == first
    codes = np.concatenate([chunk.codes for chunk in chunks])
    np.testing.assert_array_equal(codes[:first, 0], whole.codes[:first, 0])
    if prompt == "same":
        np.testing.assert_array_equal(codes[first:], whole.codes[first:])
    samples = np.concatenate([chunk.samples for chunk in chunks])
    assert info["seconds"] == len(samples) / 24_000
    assert info.keys() == whole.info.keys() | {"first_audio_seconds"}
    for row, following, piece in zip(rows, rows[1:], cut(tts, TEXT, voice, reading), strict=False):
        assert following["start_seconds"] - row["end_seconds"] == pytest.approx(piece.pause_seconds, abs=1e-3)
    with pytest.raises(UserError, match="no phonemes"):  # at once
        stream_long(tts, "?", voice=voice)


def test_a_sliding_prompt_is_the_voice_and_the_piece_before(tts, voice, monkeypatch):
    asked = []
    batch = tts.synthesize_batch

    def good(requests, **more):
        asked.extend(requests)
        audios = batch(requests, **more)
        for audio in audios:
            audio.info["problems"] = ["silent"] if len(asked) == 2 else []
        return audios

    monkeypatch.setattr(tts, "synthesize_batch", good)
    audio = synthesize_long(tts, TEXT, voice=voice, options=FAST, reading=dataclasses.replace(SHORT, prompt="sliding"))
    first, second = (row["frames"] for row in audio.info["pieces"][:2])
    assert asked[0].prompt is voice and asked[2].prompt is voice  # the second piece was a bad one
    np.testing.assert_array_equal(asked[1].prompt.codes, np.concatenate([voice.codes, audio.codes[:first]]))
    assert asked[1].prompt.text == f"one two three {asked[0].text}"
    assert asked[1].prompt.phonemes == f"{voice.phonemes} {tts.phonemize([asked[0].text])[0]}"
    third = audio.info["pieces"][2]["frames"]
    codes = audio.codes[first + second : first + second + third]
    np.testing.assert_array_equal(asked[3].prompt.codes, np.concatenate([voice.codes, codes]))


def test_joints_have_the_pause_that_was_asked_for():
    rng = np.random.default_rng(0)
    parts = []
    for before, behind in ((0.3, 0.0), (0.0, 0.5), (0.21, 0.4)):
        speech = rng.uniform(0.1, 0.5, 24_000) * rng.choice([-1, 1], 24_000)
        silence = [1e-4 * rng.normal(size=round(24_000 * s)) for s in (before, behind)]
        parts.append(np.concatenate([silence[0], speech, silence[1]]).astype(np.float32))
    joined, spans = join(parts, [0.5, 0.05, 9.0], 24_000)
    assert [round(t, 3) for span in spans for t in span] == [0.3, 1.3, 1.8, 2.8, 2.85, 3.85]
    assert len(joined) == round(4.25 * 24_000)  # what is before the first and behind the last stays
    np.testing.assert_array_equal(joined[: round(1.3 * 24_000)], parts[0])
    for part, (start, end) in zip(parts, spans, strict=True):
        a, b = speech_span(part, 24_000)
        np.testing.assert_array_equal(joined[round(start * 24_000) : round(end * 24_000)], part[a:b])
    assert np.abs(joined[round(1.32 * 24_000) : round(1.78 * 24_000)]).max() == 0
    quiet, spans = join([np.zeros(100, np.float32), parts[0]], [0.1, 0.0], 24_000)
    assert len(quiet) > 24_000 and spans[0][0] == spans[0][1]


def test_silence_that_was_given_out_counts_as_the_pause():
    speech = np.random.default_rng(0).uniform(0.1, 0.5, 24_000).astype(np.float32)
    first = np.pad(speech, (0, 12_000))  # half a second
    for pause, heard in ((0.6, 0.6), (0.3, 0.51)):  # and the fade of 10 ms before the next piece
        joiner = Joiner(24_000)
        joiner.append(first, trim_end=False)
        second = joiner.append(np.pad(speech, 2_400), pause, trim_end=False)
        (_, end), (start, _) = joiner.spans
        assert start - end == pytest.approx(heard, abs=1e-3)
        assert joiner.length == len(first) + len(second)


def test_repeats_at_a_joint_are_found_in_codes(tts):
    rng = np.random.default_rng(0)
    a, b = (np.repeat(rng.integers(0, 1024, (60, 8)), 3, axis=0) for _ in range(2))
    again = np.concatenate([a[-30:], b])
    assert repeats(a, again, tts.codec.info) and not repeats(a, b, tts.codec.info)
    assert repeats(a, np.concatenate([a[-30:-27], a[-30:], b]), tts.codec.info)  # other lengths of the same sounds
    silence = np.zeros((90, 8), int)
    assert not repeats(silence, silence, tts.codec.info)
    assert not repeats(a[:0], a, tts.codec.info)
    assert not repeats(np.concatenate([a, silence, silence]), again, tts.codec.info)  # long ago


def test_a_repeat_is_drawn_again_and_named(tts, voice, monkeypatch):
    monkeypatch.setattr("valle_jax.inference.long_text.repeats", lambda before, after, codec: len(before) > 0)
    drawn = []
    batch = tts.synthesize_batch
    monkeypatch.setattr(tts, "synthesize_batch", lambda *a, **k: drawn.append(k["first"]) or batch(*a, **k))
    reading = Reading(piece_seconds=2.0, tries=2)
    audio = synthesize_long(tts, "One two three. Four five six.", voice=voice, options=FAST, reading=reading)
    assert drawn == [0, 1 + (1 << 24)]
    assert "repeat" in audio.info["problems"] and "repeat" not in audio.info["pieces"][0]["problems"]


def test_the_command_reads_long_texts_by_itself(model_dir, tmp_path, capsys):
    write_audio(tmp_path / "voice.wav", TONE, 24_000)
    arguments = ["synthesize", "--model", str(model_dir), "--out", str(tmp_path / "out.wav")]
    arguments += ["--prompt", str(tmp_path / "voice.wav"), "--prompt-text", "one two three", "--tries=1"]
    arguments += ["--min-rate-ratio=0.1", "--max-rate-ratio=0.15", "--text"]
    main([*arguments, "One. Two.", "--long"])
    out = json.loads(capsys.readouterr().out)
    assert [piece["text"] for piece in out["pieces"]] == ["One. Two."] and out["frames"] > 0
    main([*arguments, TEXT, "--stream"])  # it does not fit, but nobody said --long
    out = json.loads(capsys.readouterr().out)
    assert len(out["pieces"]) > 1 and out["first_audio_seconds"] > 0
    assert len(read_audio(tmp_path / "out.wav", 24_000)) == pytest.approx(24_000 * out["seconds"], abs=1)


@pytest.mark.parametrize("wrong", [{"pause_seconds": -0.1}, {"piece_seconds": 0.9}, {"tries": 0}])
def test_wrong_readings_are_refused(wrong):
    with pytest.raises(UserError):
        Reading(**wrong)
