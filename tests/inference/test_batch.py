"""Many jobs: the audio that single calls give, kills, several hosts, bad takes, bad lines."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from random_model import save_random_model

from valle_jax.audio import read_audio, write_audio
from valle_jax.inference.batch import Batch, Settings
from valle_jax.inference.synthesizer import Options, Synthesizer
from valle_jax.inference.voice import voice_path

WORDS = ("one", "two", "three", "four", "five", "six")
SETTINGS = Settings(Options(max_rate_ratio=1.2, batch_size=2, tries=1), slots=4, max_tokens=256)


@pytest.fixture
def jobs(tmp_path, tts):
    """Twelve jobs, every other with a stored voice."""
    tone = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)
    write_audio(tmp_path / "tone.wav", tone, 24000)
    tts.voice(tone, "one two").save(voice_path("anna", tmp_path / "voices"))
    lines = []
    for i, text in enumerate([*WORDS, *(" ".join(pair) for pair in itertools.pairwise((*WORDS, "seven")))]):
        prompt = {"voice": "anna"} if i % 2 else {"prompt": "tone.wav", "prompt_text": "one two"}
        lines.append({"id": f"job{i}", "text": text, **prompt})
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _run(tts, jobs, out, settings=SETTINGS, **more):
    settings = dataclasses.replace(settings, voices=str(jobs.parent / "voices"))
    return Batch(tts, jobs, out, settings, **more).run()


def _results(out):
    lines = [json.loads(line) for path in sorted(out.glob("results*.jsonl")) for line in path.read_text().splitlines()]
    return {line["id"]: line for line in lines}, len(lines)


def _audio(out):
    return {path.name: path.read_bytes() for path in sorted((out / "audio").iterdir())}


def test_every_job_has_audio_and_a_line(tts, jobs, tmp_path):
    totals = _run(tts, jobs, tmp_path / "out")
    results, count = _results(tmp_path / "out")
    assert totals.done == count == len(results) == 12
    assert totals.failed == 0
    for i in range(12):
        line = results[f"job{i}"]
        samples = read_audio(tmp_path / "out" / line["audio"], 24000)
        assert len(samples) == line["frames"] * 320
        assert line["tries"] == 1
        assert ("no_end_of_speech" in line["problems"]) == (not line["finished"])


def test_a_slot_has_room_for_the_begin_of_audio_token(jobs, tmp_path):
    save_random_model(tmp_path / "model", prepend_bos=True)
    settings = Settings(Options(min_rate_ratio=0.0, max_rate_ratio=40.0, tries=1), slots=4, max_tokens=256)
    totals = _run(Synthesizer.load(tmp_path / "model"), jobs, tmp_path / "out", settings)
    assert (totals.done, totals.failed) == (12, 0)


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(tts, jobs, tmp_path):
    """Killed between audio and line, in the middle of a line, and after some jobs."""
    _run(tts, jobs, tmp_path / "whole")
    _run(tts, jobs, tmp_path / "killed")
    path = tmp_path / "killed" / "results.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)[:5]
    path.write_bytes(b"".join(kept) + b'{"line": 3')
    removed = sorted((tmp_path / "killed" / "audio").iterdir())[6:8]
    names = {json.loads(line)["audio"] for line in kept}
    for audio in removed:
        if f"audio/{audio.name}" not in names:
            audio.unlink()
    totals = _run(tts, jobs, tmp_path / "killed")
    assert totals.done == 7
    results, count = _results(tmp_path / "killed")
    assert count == len(results) == 12
    assert _audio(tmp_path / "killed") == _audio(tmp_path / "whole")


def test_hosts_share_the_jobs(tts, jobs, tmp_path):
    _run(tts, jobs, tmp_path / "one")
    for part in range(2):
        _run(tts, jobs, tmp_path / "two", part=part, parts=2)
    results, count = _results(tmp_path / "two")
    assert count == len(results) == 12
    assert _audio(tmp_path / "two") == _audio(tmp_path / "one")


def test_bad_takes_are_drawn_again_and_never_silent(tts, jobs, tmp_path):
    """A decoder that knows nothing ends by chance; what never ends well says so after the last try."""
    options = dataclasses.replace(SETTINGS.options, tries=3)
    totals = _run(tts, jobs, tmp_path / "out", dataclasses.replace(SETTINGS, options=options))
    results, _ = _results(tmp_path / "out")
    tries = [line["tries"] for line in results.values()]
    assert max(tries) == 3
    assert all(line["problems"] for line in results.values() if line["tries"] == 3 and not line["finished"])
    assert all(not line["problems"] for line in results.values() if line["tries"] < 3)
    assert totals.with_problems == sum(bool(line["problems"]) for line in results.values())


def test_what_is_no_job_is_listed_and_the_others_are_done(tts, jobs, tmp_path):
    with open(jobs, "a") as file:
        file.write('{"id": "bad"\n')
        for job in (
            {"id": "silent", "text": "...", "voice": "anna"},
            {"id": "nobody", "text": "one", "voice": "bert"},
            {"id": "missing", "text": "one", "prompt": "no.wav", "prompt_text": "one"},
            {"id": "long", "text": "one two three four five six " * 2, "voice": "anna"},
        ):
            file.write(json.dumps(job) + "\n")
    totals = _run(tts, jobs, tmp_path / "out")
    results, _ = _results(tmp_path / "out")
    assert (totals.done, totals.failed) == (12, 5)
    reasons = {name: results[name]["reason"] for name in ("", "silent", "nobody", "missing", "long")}
    assert "not JSON" in reasons[""]
    assert "no phonemes" in reasons["silent"]
    assert "no voice 'bert'" in reasons["nobody"]
    assert "no.wav" in reasons["missing"]
    assert "256 tokens" in reasons["long"]
