"""The best of several takes: by codes alone, and by what pocketsphinx and resemblyzer hear in real recordings."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, most_probable
from valle_jax.inference.ranking import choose, rerank
from valle_jax.inference.request import Audio, Options, Request

RATE = 16_000
TEXT = "But he was placed under the control of a committee."
PROMPT = np.zeros((75, 8), np.int32)


def _take(frames: int, finished: bool, log_probability: float) -> Take:
    return Take(np.zeros((frames, 1), np.int32), finished, log_probability)


def test_by_codes_takes_that_ended_go_first_and_then_likely_codes_and_lengths():
    endless, short, long = _take(100, False, -1.0), _take(60, True, -2.0), _take(160, True, -2.1)
    unlikely, likely = _take(100, True, -4.0), _take(125, True, -2.5)
    drawn_out = _take(140, True, -2.4)
    # Less 2 |log(frames / 100)|: short -3.02, long -3.04, unlikely -4, likely -2.95, drawn out -3.07.
    job = Job(np.arange(4), PROMPT, 0, 300, expected_frames=100)
    assert most_probable(job, [endless, short, long, unlikely, drawn_out, likely]) is likely
    assert most_probable(job, [endless, short, long]) is short
    assert most_probable(job, [endless]) is endless
    unknown = Job(np.arange(4), PROMPT, 0, 300)
    assert most_probable(unknown, [endless, long, short, likely]) is short


def test_p2_s_rule():
    assert rerank([0.5, 0.1, 0.0], [0.4, 0.35, 0.2]) == 1  # the lowest error rate above 0.3
    assert rerank([0.1, 0.1], [0.4, 0.5]) == 1
    assert rerank([0.0, 0.9], [0.1, 0.29]) == 1  # none above: the highest similarity
    assert rerank([0.0, 0.9], [float("nan"), 0.1]) == 1


@pytest.fixture(scope="module")
def recordings(speech):
    """What is said right, another text of that speaker, another speaker's; a prompt of the first."""
    folder = speech / "LibriSpeech" / "train-clean-100"
    names = "27/123349/27-123349-0001", "27/123349/27-123349-0010", "19/198/19-198-0008", "27/123349/27-123349-0025"
    return [read_audio(folder / f"{name}.flac", RATE) for name in names]


def _audio(samples: np.ndarray, log_probability: float = -3.0, problems=()) -> Audio:
    info = {"problems": list(problems), "log_probability": log_probability}
    return Audio(samples, RATE, info, np.zeros((1, 8), np.int32))


def _options(rank_by) -> Options:
    return Options(rank_by=rank_by, best_of=3)


JOB = Job(np.arange(4), PROMPT, 0, 300, prompt_tokens=2, words=TEXT)


def test_the_recording_of_another_text_loses(recordings):
    pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
    right, wrong, _, prompt = recordings
    takes = [_audio(wrong, -1.0), _audio(right, -5.0)]
    best = choose(JOB, takes, prompt, _options("wer"))
    assert best is takes[1] and best.info["wer"] < 0.3 and takes[0].info["wer"] > 0.7
    assert "similarity" not in best.info
    bad = [_audio(wrong), _audio(right, problems=["loop"])]
    assert choose(JOB, bad, prompt, _options("wer")) is bad[0]


def test_a_continued_prompt_is_heard_with_what_follows(recordings):
    """The beginning of the recording is the prompt: together they are the text, the rest alone is half of it."""
    pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
    right = recordings[0]
    beginning, rest = np.split(right, [round(1.45 * RATE)])
    whole = choose(Job(np.arange(4), PROMPT, 0, 300, words=TEXT), [_audio(rest)], beginning, _options("wer"))
    alone = choose(JOB, [_audio(rest)], beginning, _options("wer"))
    assert whole.info["wer"] < 0.3 < alone.info["wer"]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(package) for package in ("resemblyzer", "torch", "pocketsphinx")),
    reason="resemblyzer, torch or pocketsphinx is not installed",
)
def test_the_recording_of_another_voice_loses(recordings):
    right, wrong, stranger, prompt = recordings
    takes = [_audio(stranger), _audio(wrong), _audio(0 * wrong, problems=["silent"])]
    best = choose(JOB, takes, prompt, _options("similarity"))
    assert best is takes[1] and best.info["similarity"] > takes[0].info["similarity"]
    assert takes[2].info["similarity"] == 0
    takes = [_audio(stranger), _audio(right), _audio(wrong)]
    best = choose(JOB, takes, prompt, _options("wer+similarity"))
    assert best is takes[1] and best.info["similarity"] > 0.3 and best.info["wer"] < 0.3


def test_takes_of_a_model_are_heard(tts):
    """Random decoders say nothing: every word is missed or wrong, and all takes are measured before one is kept."""
    pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
    tone = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)
    options = Options(best_of=2, rank_by="wer", tries=1, max_rate_ratio=1.0)
    (audio,) = tts.synthesize_batch([Request("three four", tone, "one two")], options=options)
    assert audio.info["wer"] >= 0.5
    jobs = tts.jobs([Request("three four", tone, "one two")], options)
    (drawn,) = tts.draw(jobs, [0], seed=0, options=options)
    assert len(audio.codes) in [len(take.codes) for take in drawn]


def test_nothing_of_evaluation_is_imported_unless_asked_for():
    code = "import sys, valle_jax.inference.synthesizer; print([m for m in sys.modules if 'evaluation' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_rankings_are_refused():
    with pytest.raises(UserError, match="known: log_probability, wer, similarity"):
        Options(rank_by="taste")
