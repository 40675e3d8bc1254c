"""The figures of systems whose figures are known: the recordings themselves, their resynthesis, and mistaken ones."""

import numpy as np
import pytest

from data_prep.synthetic import Corpus
from valle_jax.codec import get_codec
from valle_jax.quickstart.scores import score
from valle_jax.quickstart.trial import Spoken, load_cases

pytest.importorskip("pocketsphinx", reason="the extra `quickstart` is not installed")
pytest.importorskip("espeakng_loader", reason="the extra `quickstart` is not installed")

N = 20


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Two cases of each of ten unseen voices."""
    folder = tmp_path_factory.mktemp("corpus")
    Corpus(str(folder), minutes=0.05, voices=1, test_utterances=N).run()
    return load_cases(folder / "test", 24_000)


def test_cases_come_in_pairs_of_one_voice_and_two_texts(cases):
    assert len(cases) == N
    assert len({case.speaker for case in cases}) == 10
    assert len({case.text for case in cases}) == N
    assert all(case.text != case.prompt_text for case in cases)
    assert 2.2 < np.median([len(case.prompt) for case in cases]) / 24_000 < 3.8


@pytest.fixture(scope="module")
def scores(cases):
    """Of recordings, their resynthesis, and a model that says the next case in its voice."""
    codec = get_codec("mel_rvq")
    codes, lengths = codec.encode([case.reference for case in cases])
    resynthesis = codec.decode(codes, lengths)
    prompts = codec.decode(*codec.encode([case.prompt for case in cases]))
    rotated = resynthesis[1:] + resynthesis[:1]
    spoken = {
        "original": Spoken([case.reference for case in cases]),
        "codec": Spoken(resynthesis),
        "valle": Spoken(rotated, [True] * (N - 5) + [False] * 5),
        "right": Spoken(resynthesis[:4], [True] * 3 + [False]),
        "same": Spoken(rotated[:4], [True] * 4),
    }
    return score(cases, prompts, spoken, 24_000)


def test_figures_tell_good_speech_from_bad(scores):
    figures = {name: {key: e.value for key, e in s.estimates.items()} for name, s in scores.items()}
    assert figures["original"]["digit_accuracy"] > 0.85
    assert figures["codec"]["digit_accuracy"] > 0.85
    assert figures["valle"]["digit_accuracy"] < 0.4
    # Chance is 0.1; from two prompts a voice, the spread within a voice is known poorly.
    assert figures["codec"]["voice_nearest_mel_statistics"] > 0.6
    assert figures["valle"]["voice_nearest_mel_statistics"] < 0.2
    assert figures["codec"]["similarity_mel_statistics"] > figures["valle"]["similarity_mel_statistics"] + 0.3
    for distortion, least in (("mel_cepstral_distortion", 4), ("mel_distortion", 5)):
        assert figures["codec"][distortion] == pytest.approx(0, abs=1e-3)
        assert figures["valle"][distortion] > least
    assert "end_of_speech" not in figures["original"]
    assert figures["valle"]["end_of_speech"] == 0.75
    assert figures["right"]["duration_ratio"] == pytest.approx(1, abs=0.02)  # a frame is 320 samples
    assert scores["right"].estimates["digit_accuracy"].n == 4
    assert len(scores["codec"].heard) == N


def test_changes_are_those_of_the_same_cases(scores):
    for change in scores["same"].changes.values():  # not the figure of four cases less that of twenty
        assert change.low == change.value == change.high == 0
        assert change.n == 4
    changes = scores["right"].changes
    assert changes["digit_accuracy"].low > 0.3
    assert changes["similarity_mel_statistics"].low > 0
    assert changes["mel_cepstral_distortion"].high < -3
    assert changes["end_of_speech"].value == -0.25
    assert "end_of_speech" not in scores["codec"].changes
