"""Text to audio with random decoders and the shipped codec: shapes, seeds, and what bad input gets."""

import dataclasses

import numpy as np
import pytest
from random_model import TONE

from valle_jax.audio import read_audio, write_audio
from valle_jax.errors import UserError
from valle_jax.inference.batching import Take, generate, most_probable, take_keys
from valle_jax.inference.synthesizer import SYMBOLS_PER_SECOND, Options, Request, Synthesizer
from valle_jax.text.vocabulary import EOS_ID, Vocabulary


def test_audio_has_the_length_of_its_codes_and_the_seed_decides(tts):
    first, again, other = (
        tts.synthesize("three four", prompt=TONE, prompt_text="one two", seed=seed) for seed in (0, 0, 1)
    )
    assert first.codes.shape == (first.info["frames"], 8)
    assert len(first.samples) == first.info["frames"] * 320
    assert first.samples.dtype == np.float32
    assert np.abs(first.samples).max() <= 1
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.codes.shape != other.codes.shape or (first.codes != other.codes).any()


def test_a_batch_gives_what_single_calls_give_for_the_first_request(tts):
    requests = [Request("three four", TONE, "one two"), Request("nine", TONE[:18000], "seven")]
    batch = tts.synthesize_batch(requests, seed=3)
    single = tts.synthesize("three four", prompt=TONE, prompt_text="one two", seed=3)
    np.testing.assert_array_equal(batch[0].codes, single.codes)


def test_durations_stay_within_the_limits_and_problems_are_named(tts):
    options = Options(min_rate_ratio=0.9, max_rate_ratio=1.1)
    audio = tts.synthesize("one two", prompt=TONE, prompt_text="one two", options=options)
    assert audio.info["tries"] == 3
    assert 67 <= audio.info["frames"] <= 82  # 75 frames of prompt for the same words
    assert ("no_end_of_speech" in audio.info["problems"]) == (not audio.info["finished"])


def test_bad_takes_are_drawn_again_and_say_so_in_the_end(tts):
    """Random decoders end by chance: some takes are bad. A try is the next take of the utterance's own keys."""
    words = ["one two", "three", "four five", "six", "seven eight", "nine"]
    requests = [Request(text, TONE, "one two") for text in words]
    single = tts.synthesize_batch(requests, options=Options(max_rate_ratio=1.2, tries=1))
    options = Options(max_rate_ratio=1.2, tries=3)
    audios = tts.synthesize_batch(requests, options=options)
    tries = [audio.info["tries"] for audio in audios]
    assert len(set(tries)) > 1
    assert [n == 1 for n in tries] == [not audio.info["problems"] for audio in single]
    assert all(bool(audio.info["problems"]) <= (n == 3) for audio, n in zip(audios, tries, strict=True))
    jobs = tts.jobs(requests, options)
    for i, (audio, n) in enumerate(zip(audios, tries, strict=True)):
        ((take,),) = tts.draw(jobs[i : i + 1], [i], seed=0, options=options, number=n - 1)
        np.testing.assert_array_equal(audio.codes[:, 0], take.codes[:, 0])


def test_symbols_that_the_model_has_no_token_for_are_named(tts, monkeypatch):
    assert tts.jobs([Request("three", TONE, "one two")], Options())[0].unknown == ()
    full = tts.model.vocabulary
    poorer = Vocabulary("poorer", tuple(symbol for symbol in full.symbols if symbol not in "θw"))
    monkeypatch.setattr(tts, "model", dataclasses.replace(tts.model, vocabulary=poorer))
    audio = tts.synthesize("three", prompt=TONE, prompt_text="one two", options=Options(tries=1))
    assert audio.info["unknown_symbols"] == ["w", "θ"]  # of "one", of "three"


def test_without_a_transcript_the_prompt_is_continued(tts):
    """The text is the whole utterance's: no token of it is the prompt's, and the prompt's frames count towards it."""
    options = Options(min_rate_ratio=0.5, max_rate_ratio=2.0)
    text = "one two three four five six seven eight"
    (job,) = tts.jobs([Request(text, TONE, None)], options)
    (phonemes,) = tts.phonemes([text])
    np.testing.assert_array_equal(job.text, [*phonemes, EOS_ID])
    assert job.prompt_tokens == 0 and len(job.prompt_codes) == 75
    expected = len(phonemes) / SYMBOLS_PER_SECOND * 75
    assert job.min_frames == max(0, int(0.5 * expected) - 75) and job.max_frames == int(2 * expected) - 75
    audio = tts.synthesize(text, prompt=TONE, prompt_text=None, options=options)
    assert job.min_frames <= audio.info["frames"] <= job.max_frames
    assert job.continues and job.expected_frames == round(expected) - 75
    (judged,) = tts.decode([job], [Take(np.zeros((1, 8), np.int32), True, 0.0)])
    assert "too_short" not in judged.info["problems"]  # 1 s of prompt has said the most of it
    (judged,) = tts.decode([dataclasses.replace(job, words=text * 2)], [Take(np.zeros((1, 8), np.int32), True, 0.0)])
    assert "too_short" in judged.info["problems"]


def test_best_of_takes_the_most_probable_take(tts):
    options = Options(best_of=4, max_rate_ratio=1.0)
    jobs = tts.jobs([Request("three", TONE, "one two")], options)
    best = tts.generate(jobs, seed=0, options=options)[0]
    takes = generate(jobs * 4, tts.ar, tts.nar, take_keys(0, [0], range(4)).reshape(4, 1), options.sampling)
    expected = most_probable(jobs[0], takes)
    np.testing.assert_array_equal(best.codes, expected.codes)
    # Another batch size is another program: float32 sums of a few dozen terms.
    assert best.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    assert len({take.log_probability for take in takes}) == 4


def test_files_are_read_at_any_rate(tts, tmp_path):
    write_audio(tmp_path / "voice.wav", TONE[::2], 12000)
    audio = tts.synthesize("three", prompt=tmp_path / "voice.wav", prompt_text="one")
    audio.save(tmp_path / "out.flac")
    assert len(read_audio(tmp_path / "out.flac", 24000)) == len(audio.samples)


@pytest.mark.parametrize(
    "wrong",
    [
        {"best_of": 0},
        {"tries": 0},
        {"batch_size": 0},
        {"nar_temperature": -0.1},
        {"min_rate_ratio": 2.0, "max_rate_ratio": 1.0},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UserError):
        Options(**wrong)


@pytest.mark.parametrize(
    ("prompt", "prompt_text", "text", "message"),
    [
        (TONE[:2400], "one", "two", "0.10 s"),
        (np.zeros(24000, np.float32), "one", "two", "silent"),
        (TONE, "one", "...", "no phonemes"),
        (TONE, "", "two", "no phonemes"),
        (np.tile(TONE, 9), "one", "two", "more than the 600 tokens"),
    ],
)
def test_bad_requests_are_refused_in_one_line(tts, prompt, prompt_text, text, message):
    with pytest.raises(UserError, match=message) as error:
        tts.synthesize(text, prompt=prompt, prompt_text=prompt_text)
    assert "\n" not in str(error.value)


def test_unreadable_prompts_and_foreign_codecs_are_refused(tts, model_dir, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"not audio")
    with pytest.raises(UserError, match=r"noise\.wav"):
        tts.synthesize("two", prompt=tmp_path / "noise.wav", prompt_text="one")
    with pytest.raises(UserError, match=r"missing\.wav"):
        tts.synthesize("two", prompt=tmp_path / "missing.wav", prompt_text="one")
    with pytest.raises(UserError, match="not a model directory"):
        Synthesizer.load(tmp_path)
