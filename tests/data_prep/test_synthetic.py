"""The corpus of spoken digits: what is kept for testing is in no training corpus, and a seed repeats every byte."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader", reason="the extra `quickstart` is not installed")

from data_prep import synthetic
from data_prep.sources import detect_layout, list_recordings
from data_prep.synthetic import Corpus, draw_digits, draw_voices, is_test_sequence, plan_test, plan_training
from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.hearing.digits import DIGITS
from valle_jax.hearing.similarity import pitch


def _write(folder: pathlib.Path, **options) -> pathlib.Path:
    Corpus(out=str(folder), minutes=0.1, voices=3, test_utterances=3, **options).run()
    return folder


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """One seed twice, and another."""
    folder = tmp_path_factory.mktemp("synthetic")
    return _write(folder / "first"), _write(folder / "again"), _write(folder / "other", seed=1)


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _entries(folder: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def _digits(text: str) -> tuple[int, ...]:
    return tuple(DIGITS.index(word) for word in text.split())


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_no_test_sequence_is_trained_on_whatever_the_seed(seed):
    options = Corpus(out="", minutes=1, voices=20, test_utterances=200)
    random = np.random.default_rng(seed)
    trained = {u.digits for u in itertools.islice(plan_training(options, random), 2_000)}
    pairs = list(plan_test(options, np.random.default_rng(seed + 100)))
    tested = {utterance.digits for utterance, _ in pairs}
    assert len(tested) == 200
    assert all(map(is_test_sequence, tested))
    assert not any(map(is_test_sequence, trained))
    assert not any(is_test_sequence(prompt.digits) for _, prompt in pairs)


def test_a_quarter_of_the_sequences_is_kept_for_testing():
    sequences = list(itertools.product(range(10), repeat=4))
    assert sum(map(is_test_sequence, sequences)) / len(sequences) == pytest.approx(1 / 4, abs=0.02)


def test_split_of_a_sequence_is_fixed():
    """Written down: another split would move test sequences of published figures into training."""
    sequences = [(1, 2, 3, 4), (0, 0, 0, 0), (9, 8, 7, 6, 5), (3, 1, 4, 1, 5, 9)]
    assert [is_test_sequence(s) for s in sequences] == [False, True, False, True]


def test_variants_of_training_validation_and_test_are_disjoint():
    groups = (synthetic.TRAINING_VARIANTS, synthetic.VALIDATION_VARIANTS, synthetic.TEST_VARIANTS)
    names = [variant.name for group in groups for variant in group]
    assert len(names) == len(set(names))
    assert all(v.lowest_pitch < v.highest_pitch for group in groups for v in group)


def test_voices_spread_over_their_variant_s_pitches():
    voices = draw_voices(synthetic.TRAINING_VARIANTS, 96, np.random.default_rng(0))
    assert len({voice.speaker for voice in voices}) == 96
    ranges = {variant.name: variant for variant in synthetic.TRAINING_VARIANTS}
    for name, own in itertools.groupby(sorted(voices, key=lambda v: v.variant), key=lambda v: v.variant):
        pitches = sorted(voice.pitch for voice in own)
        low, high = ranges[name].lowest_pitch, ranges[name].highest_pitch
        assert low <= pitches[0] and pitches[-1] <= high
        assert pitches[-1] - pitches[0] > (high - low) / 3


def test_a_longer_tract_speaks_lower_and_as_fast(tmp_path):
    """Resampling by `tract` divides every frequency, and espeak's rate makes up for the duration."""
    writer = synthetic._Writer(tmp_path, synthetic.Espeak())
    heard, seconds = {}, {}
    for tract in (1.0, 1.15):
        voice = synthetic.Voice("m1", 50, 30, 170, tract)
        seconds[tract] = writer.write(f"{tract}.wav", synthetic.Utterance((1, 2, 3, 4, 5), voice, "train"))
        samples = read_audio(tmp_path / f"{tract}.wav", 24_000)
        heard[tract] = np.median(pitch(samples, len(samples) // 320))
    assert seconds[1.15] == pytest.approx(seconds[1.0], rel=0.05)  # espeak's rate is in whole words per minute
    assert heard[1.0] / heard[1.15] == pytest.approx(1.15, rel=0.05)


def test_lengths_are_those_asked_for():
    random = np.random.default_rng(0)
    assert {len(draw_digits(random, range(3, 6), test=False)) for _ in range(200)} == {3, 4, 5}


def test_a_seed_repeats_every_byte_and_another_does_not(corpora):
    first, again, other = map(_contents, corpora)
    assert first == again
    assert first["test/manifest.jsonl"] != other["test/manifest.jsonl"]
    assert first["train/manifest.jsonl"] != other["train/manifest.jsonl"]
    assert first["test/000.wav"] != other["test/000.wav"]


def test_corpora_of_all_seeds_share_no_test_text(corpora):
    tested = {e["text"] for folder in corpora for e in _entries(folder / "test") if "prompt" in e}
    trained = {e["text"] for folder in corpora for e in _entries(folder / "train")}
    assert tested and trained and not tested & trained
    assert all(is_test_sequence(_digits(text)) for text in tested)


def test_manifests_are_of_the_jsonl_layout(corpora):
    for part in ("train", "test"):
        folder = corpora[0] / part
        assert detect_layout(folder) == "jsonl"
        recordings = list(list_recordings(folder, "jsonl"))
        assert len(recordings) == len(_entries(folder)) == len(list(folder.glob("*.wav")))
        assert all(soundfile.info(recording.audio_path).duration > 0.5 for recording in recordings)
        assert len({recording.utterance_id for recording in recordings}) == len(recordings)
        # Neighbours are joined in training, so a speaker's utterances stand together.
        speakers = [speaker for speaker, _ in itertools.groupby(recordings, key=lambda r: r.speaker_id)]
        assert len(speakers) == len(set(speakers))


def test_training_audio_is_as_long_as_asked_for(corpora):
    folder = corpora[0] / "train"
    entries = _entries(folder)
    seconds = [soundfile.info(folder / e["audio"]).duration for e in entries if e["split"] == "train"]
    assert 6 <= sum(seconds) < 6 + max(seconds)
    validation = [e["speaker"] for e in entries if e["split"] == "valid_speaker"]
    assert len(validation) == synthetic.VALIDATION_UTTERANCES * len(synthetic.VALIDATION_VARIANTS)
    assert not set(validation) & {e["speaker"] for e in entries if e["split"] != "valid_speaker"}


def test_prompts_are_of_the_same_speaker_and_about_3_s(corpora):
    durations = []
    for folder in corpora:
        entries = {e["audio"]: e for e in _entries(folder / "test")}
        for entry in (e for e in entries.values() if "prompt" in e):
            prompt = entries[entry["prompt"]]
            assert (prompt["speaker"], prompt["text"]) == (entry["speaker"], entry["prompt_text"])
            assert prompt["text"] != entry["text"]
            durations.append(soundfile.info(folder / "test" / entry["prompt"]).duration)
    assert np.median(durations) == pytest.approx(3, abs=0.4)
    assert min(durations) > 2 and max(durations) < 4.5


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"voices": 0}, {"test_utterances": 0}])
def test_nothing_to_write_is_refused(wrong):
    with pytest.raises(UserError, match="must be positive"):
        Corpus(out="nowhere", **wrong)


def test_wrong_arguments_are_one_line_on_the_command_line():
    command = [sys.executable, "-m", "data_prep.synthetic", "--out", "nowhere", "--minutes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--minutes" in done.stderr
