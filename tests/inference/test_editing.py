"""Speech editing: which words differ, where they are, and that what is kept is the recording's."""

import json

import numpy as np
import pytest

from valle_jax.audio import read_audio, resample, write_audio
from valle_jax.cli import main
from valle_jax.errors import UserError
from valle_jax.evaluation.cutting import WordCutter
from valle_jax.inference.editing import FADE_SECONDS, Change, changes, edit, paste, word_bounds, words

pytest.importorskip("num2words", reason="the extra `eval` is not installed")

RATE = 24_000
PAUSE = 0.6


@pytest.fixture(scope="module")
def spoken(speech):
    """Two utterances of LibriSpeech with a pause of 0.6 s: samples, both texts, and where the pause begins."""
    pytest.importorskip("pocketsphinx")
    for transcript in sorted((speech / "LibriSpeech").rglob("*.trans.txt")):
        lines = [line.split(" ", 1) for line in transcript.read_text().splitlines()]
        files = [(next(transcript.parent.glob(f"{name}.*")), text.lower()) for name, text in lines]
        short = [(read_audio(path, RATE), text) for path, text in files if 5 <= len(text.split()) <= 12]
        if len(short) >= 2:
            (a, first), (b, second) = short[:2]
            noise = 1e-4 * np.random.default_rng(0).standard_normal(round(PAUSE * RATE))
            return np.concatenate([a, noise.astype(np.float32), b]), first, second, len(a) / RATE
    pytest.skip("no two short utterances of one chapter")


def test_word_differences():
    old = words("We met on Monday , at noon -- really.")
    assert old == ["We", "met", "on", "Monday ,", "at", "noon --", "really."]
    assert changes(old, words("we met, on FRIDAY evening at noon. Really")) == [Change(3, 4, ("FRIDAY", "evening"))]
    assert changes(old, words("We on Monday at the noon")) == [
        Change(1, 2, ()), Change(5, 5, ("the",)), Change(6, 7, ()),
    ]  # fmt: skip
    assert changes(old, old) == []
    assert changes(["It's", "2nd"], ["its", "second"]) == [Change(0, 1, ("its",))]


def test_words_are_where_they_are_said(spoken):
    samples, first, second, pause = spoken
    old = f"{first} {second}".split()
    bounds = word_bounds(samples, RATE, old)
    n = len(first.split())
    assert len(bounds) == len(old) + 1 and bounds == sorted(bounds)
    assert pause - 0.05 < bounds[n] < pause + PAUSE + 0.05
    # An aligner with other models puts the words' ends there too; as in test_alignment.py, by the median.
    ends = WordCutter()._word_ends(resample(samples[: round(pause * RATE)], RATE, 16_000), first.split())
    assert np.median(np.abs(np.array(bounds[1:n]) - ends[:-1])) <= 0.05
    # The second utterance is where it is by itself.
    alone = word_bounds(samples[round((pause + PAUSE) * RATE) :], RATE, second.split())
    assert np.median(np.abs(np.array(bounds[n + 1 :]) - pause - PAUSE - alone[1:])) <= 0.02
    with pytest.raises(UserError, match="not what the recording says"):
        word_bounds(samples[: RATE // 2], RATE, old)


def test_what_is_kept_is_the_recording(tts, spoken):
    """A word before the pause is replaced, one inserted, one deleted: codes bit for bit, samples but for the fades."""
    samples, first, second, pause = spoken
    old = f"{first} {second}".split()
    n = len(first.split())
    new = [*old[:1], "very", *old[1 : n - 1], "indeed", *old[n : n + 2], *old[n + 3 :]]
    audio = edit(tts, samples, " ".join(old), " ".join(new))
    (codes,), _ = tts.codec.encode([samples])
    edits = audio.info["edits"]
    assert [(e["old"], e["new"]) for e in edits] == [("", "very"), (old[n - 1], "indeed"), (old[n + 2], "")]
    assert edits[0]["old_seconds"][0] == edits[0]["old_seconds"][1] and edits[2]["info"] is None
    assert pause - 0.05 < edits[1]["old_seconds"][1] < pause + PAUSE + 0.05
    places = np.round(75 * np.array([[*e["old_seconds"], *e["new_seconds"]] for e in edits])).astype(int)
    fade = round(FADE_SECONDS * RATE)
    before_old, before_new = 0, 0
    for old_start, old_end, new_start, new_end in [*places, [len(codes)] * 2 + [len(audio.codes)] * 2]:
        np.testing.assert_array_equal(audio.codes[before_new:new_start], codes[before_old:old_start])
        inner = slice(before_new * 320 + (fade if before_new else 0), min(new_start * 320 - fade, len(audio.samples)))
        moved = 320 * (before_old - before_new)
        kept = samples[inner.start + moved : inner.stop + moved]
        np.testing.assert_array_equal(audio.samples[inner][: len(kept)], kept)
        before_old, before_new = old_end, new_end
    assert edits[1]["info"]["frames"] == places[1, 3] - places[1, 2] > 0
    assert len(audio.samples) == 320 * len(audio.codes)


def test_deletion_needs_no_model_and_a_new_first_word_finds_its_voice_behind(tts, spoken, monkeypatch):
    samples, first, second, _ = spoken
    old = f"{first} {second}".split()
    asked = []
    batch = tts.synthesize_batch
    monkeypatch.setattr(tts, "synthesize_batch", lambda requests, **k: asked.extend(requests) or batch(requests, **k))
    shorter = edit(tts, samples, " ".join(old), second)
    (deleted,) = shorter.info["edits"]
    start, end = (round(75 * s) for s in deleted["old_seconds"])
    (codes,), _ = tts.codec.encode([samples])
    np.testing.assert_array_equal(shorter.codes, np.concatenate([codes[:start], codes[end:]]))
    assert not asked
    edit(tts, samples, " ".join(old), " ".join(["Perhaps", *old[1:]]))
    (request,) = asked
    assert request.text == "Perhaps" and request.prompt.text == " ".join(old[1 : 1 + len(request.prompt.text.split())])
    assert 0.5 <= request.prompt.seconds <= 10
    place = round(75 * word_bounds(samples, RATE, old)[1])
    assert (codes[place : place + 20] == request.prompt.codes[:20]).all()


def test_fades_change_samples_at_the_joints_only():
    rng = np.random.default_rng(0)
    recording, decoded = (
        rng.normal(size=320 * 100 - 77).astype(np.float32),
        rng.normal(size=320 * 90).astype(np.float32),
    )
    samples = paste(decoded, recording, [(0, 40), (None, 20), (70, 30)], 320, RATE)
    fade = round(FADE_SECONDS * RATE)
    a, b, end = 40 * 320, 60 * 320, 90 * 320 - 77
    np.testing.assert_array_equal(samples[: a - fade], recording[: a - fade])
    np.testing.assert_array_equal(samples[a:b], decoded[a:b])
    np.testing.assert_array_equal(samples[b + fade : end], recording[70 * 320 + fade :])
    assert not samples[end:].any()
    for part, kept in ((slice(a - fade, a), recording[a - fade : a]), (slice(b, b + fade), recording[22400:][:fade])):
        low, high = np.minimum(kept, decoded[part]), np.maximum(kept, decoded[part])
        assert (samples[part] >= low - 1e-6).all() and (samples[part] <= high + 1e-6).all()


def test_the_command(model_dir, spoken, tmp_path, capsys):
    samples, first, second, _ = spoken
    write_audio(tmp_path / "in.wav", samples, RATE)
    arguments = ["edit", str(model_dir), "--audio", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.wav")]
    arguments += ["--transcript", f"{first} {second}", "--new-text"]
    main([*arguments, f"{first} indeed {second}"])
    info = json.loads(capsys.readouterr().out)
    assert info["edits"][0]["new"] == "indeed" and len(info["edits"]) == 1
    assert len(read_audio(tmp_path / "out.wav", RATE)) == 320 * info["frames"]
    for wrong, message in ((f"{first} {second}", "differ"), ("something else entirely", "too little"), ("", "words")):
        with pytest.raises(SystemExit) as error:
            main([*arguments, wrong])
        assert error.value.code == 2 and message in capsys.readouterr().err
