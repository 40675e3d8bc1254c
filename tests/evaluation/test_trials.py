"""Trial lists: the same on every machine, and with reasons for what is left out."""

import dataclasses
import json

import corpora
import pytest

from data_prep.sources import list_recordings
from valle_jax.errors import UserError, WorkError
from valle_jax.evaluation.corpus import Corpus
from valle_jax.evaluation.protocols import PROTOCOLS, get_protocol, with_whole_prompts
from valle_jax.evaluation.systems import SYSTEMS
from valle_jax.evaluation.trials import TrialList, make_trials

CONTINUAL = PROTOCOLS["p1-librispeech-continual"]
REFERENCE = PROTOCOLS["p2-librispeech"]


def _make(corpus, protocol=REFERENCE, **options) -> TrialList:
    return make_trials(Corpus.open(corpus), protocol, progress=False, **options)


def _reasons(trials: TrialList) -> dict[str, str]:
    return {rejected.utterance: rejected.reason for rejected in trials.rejected}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three speakers of four utterances."""
    return corpora.write_corpus(tmp_path_factory.mktemp("corpus"), corpora.utterances(3, 4))


def test_the_list_does_not_depend_on_place_or_order(corpus, tmp_path):
    moved = corpora.write_corpus(tmp_path / "elsewhere", corpora.utterances(3, 4), reverse=True)
    assert _make(corpus) == _make(moved)


def test_a_limited_list_is_the_beginning_and_has_the_speakers_in_turn(corpus):
    whole = _make(corpus)
    assert len(whole.trials) == 12 * 2  # two settings
    few = _make(corpus, limit=3)
    assert few.trials == whole.trials[:6]
    assert {trial.speaker for trial in few.trials} == {"s0", "s1", "s2"}


def test_a_prompt_is_another_utterance_of_the_speaker_or_the_beginning_of_the_same(corpus):
    for trial in _make(corpus).trials:
        if trial.continues:
            assert (trial.prompt_audio, trial.prompt_seconds) == (trial.audio, 3.0)
        else:
            assert trial.prompt_audio != trial.audio and trial.prompt_audio.split("/")[0] == trial.speaker
            assert trial.prompt_text == f"text {trial.speaker[1:]} {trial.prompt_audio[-5]}"
            assert trial.prompt_hash != trial.audio_hash


def test_lists_are_saved_with_version_and_rule_and_read_again(corpus, tmp_path):
    trials = _make(corpus)
    trials.save(tmp_path)
    assert TrialList.load(tmp_path / "trials.jsonl") == trials
    header = json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[0])
    assert header["rule"]["version"] == 1 and header["rule"]["seconds"] == [4, 10]
    (tmp_path / "old.jsonl").write_text(json.dumps({**header, "version": 0}) + "\n")
    for name, message in (("old.jsonl", "version 0"), ("missing.jsonl", "missing.jsonl")):
        with pytest.raises(UserError, match=message):
            TrialList.load(tmp_path / name)


def test_what_is_left_out_has_a_reason(tmp_path):
    listed = [
        *corpora.utterances(1, 2),
        {"audio": "short.wav", "speaker": "s0", "text": "x", "seconds": 1.0},
        {"audio": "long.wav", "speaker": "s0", "text": "x", "seconds": 11.0},
        {"audio": "alone.wav", "speaker": "s9", "text": "x", "seconds": 5.0},
        {"audio": "missing.wav", "speaker": "s0", "text": "x"},
        {"audio": "silent.wav", "speaker": "s0", "text": "", "seconds": 5.0},
        {"audio": "french.wav", "speaker": "s0", "text": "x", "seconds": 5.0, "language": "fr-fr"},
        {"audio": "train.wav", "speaker": "s0", "text": "x", "seconds": 5.0, "split": "train"},
    ]
    trials = _make(corpora.write_corpus(tmp_path, listed))
    assert {trial.utterance for trial in trials.trials} == {"s0/u0", "s0/u1", "alone"}
    reasons = _reasons(trials)
    for name, reason in {
        "short": "1 s are not in 4 to 10 s",
        "long": "11 s are not in 4 to 10 s",
        "alone": "reference utterance: no other recording of speaker s9 has 2 to 10 s",
        "missing": "cannot be read",
        "silent": "no transcript",
        "french": "language is fr-fr",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons
    # Neither tested nor a prompt.
    assert all("train.wav" not in (trial.audio, trial.prompt_audio) for trial in trials.trials)


def test_a_corpus_without_a_trial_fails(tmp_path):
    with pytest.raises(WorkError, match="no utterance for protocol"):
        _make(corpora.write_corpus(tmp_path, corpora.utterances(2, 2, seconds=1.0)))


def test_test_clean_is_taken_where_the_corpus_has_it(tmp_path):
    listed = corpora.utterances(2, 2)
    inside = [{**u, "audio": f"test-clean/{u['audio']}", "id": f"t{i}"} for i, u in enumerate(listed)]
    trials = _make(corpora.write_corpus(tmp_path, [*listed, *inside]), CONTINUAL)
    assert len(trials.trials) == 4 and all(t.audio.startswith("test-clean/") for t in trials.trials)


def test_whole_prompts_are_near_the_length_of_the_cut(tmp_path):
    listed = [*corpora.utterances(1, 3), {"audio": "p.wav", "speaker": "s0", "text": "p", "seconds": 3.4}]
    trials = _make(corpora.write_corpus(tmp_path, listed), with_whole_prompts(get_protocol("p1-librispeech")))
    assert [t.prompt_audio for t in trials.trials] == ["p.wav"] * 3
    assert all(t.prompt_seconds == 3.4 for t in trials.trials)


def test_a_prefix_leaves_something_to_say(tmp_path):
    protocol = dataclasses.replace(CONTINUAL, seconds=(3.0, 10.0))
    listed = [{**u, "seconds": s} for u, s in zip(corpora.utterances(1, 2), (3.5, 4.5), strict=True)]
    trials = _make(corpora.write_corpus(tmp_path, listed), protocol)
    assert [t.utterance for t in trials.trials] == ["s0/u1"]
    assert "nothing to say" in _reasons(trials)["s0/u0"]


def test_datasets_need_the_corpus_they_were_prepared_from(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="--audio"):
        Corpus.open(tmp_path)


def test_protocols_name_systems_that_exist():
    for protocol in PROTOCOLS.values():
        assert set(protocol.systems) <= SYSTEMS.keys()
    with pytest.raises(UserError, match="p1-librispeech"):
        get_protocol("p3")


def test_cuts_end_at_a_word_near_three_seconds(speech):
    """On LibriSpeech, whose transcripts are known: the prompt's words are the first of its recording's."""
    pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
    folder = speech / "LibriSpeech" / "test-other"
    transcripts = {r.source: r.text for r in list_recordings(folder, "librispeech")}
    trials = make_trials(Corpus.open(folder), get_protocol("p1-librispeech"), limit=3, progress=False)
    assert len(trials.trials) == 3 and trials.header["aligner"].startswith("pocketsphinx")
    for trial in trials.trials:
        words = transcripts[trial.prompt_audio].lower().split()
        said = trial.prompt_text.split()
        assert words[: len(said)] == said and 2 < len(said) < 20
        assert abs(trial.prompt_seconds - 3.0) <= 0.5
