"""Voices told apart: the arithmetic on vectors, pitch on known periods, both measures on real speakers."""

import importlib.util
import sys

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.codec.mel_rvq import SAMPLE_RATE
from valle_jax.errors import UserError
from valle_jax.hearing.similarity import KnownVoices, MelStatistics, Resemblyzer, pitch

EMBEDDINGS = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
SPEAKERS = ["b", "b", "a", "a"]


def test_similarity_is_the_cosine_to_the_centroid():
    voices = KnownVoices.fit(EMBEDDINGS, SPEAKERS, standardise=False)
    assert voices.names == ("a", "b")
    np.testing.assert_array_equal(voices.centroids, [[0, 3], [2, 0]])
    queries = np.array([[5.0, 0.0], [1.0, 1.0], [-1.0, 2.0]])
    half = 1 / np.sqrt(2)
    expected = [[0, 1], [half, half], [2 / np.sqrt(5), -1 / np.sqrt(5)]]
    np.testing.assert_allclose(voices.similarity(queries), expected, atol=1e-12)
    assert voices.nearest(queries[[0, 2]]) == ["b", "a"]
    np.testing.assert_allclose(voices.similarity_to(queries, ["b", "a", "b"]), [1, half, -1 / np.sqrt(5)], atol=1e-12)


def test_standardising_takes_out_what_varies_within_a_voice():
    """The second dimension is loud but says nothing of the voice; the first is small and says all."""
    random = np.random.default_rng(0)
    speakers = ["a", "b", "c"] * 40
    means = {"a": -0.1, "b": 0.0, "c": 0.15}
    vectors = np.array([[means[s] + 0.01 * random.normal(), 30 * random.normal()] for s in speakers])
    raw, scaled = (KnownVoices.fit(vectors[:60], speakers[:60], standardise=s) for s in (False, True))

    def accuracy(voices, names):
        rows = [i for i in range(60, 120) if speakers[i] in names]
        return np.mean(np.array(voices.nearest(vectors[rows])) == np.array(speakers)[rows])

    assert accuracy(scaled, "ac") > 0.95  # b lies at the centre, where an angle says little
    assert accuracy(raw, "ac") < 0.7


@pytest.mark.parametrize("hertz", [80, 123, 210, 350])
def test_pitch_of_a_buzz(hertz):
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 12)).astype(np.float32)
    track = pitch(buzz, 75)
    assert track.shape == (75,)
    # Whole samples of the period: half a sample of 69 at 350 Hz is 0.7 %; the ends see half a window of zeros.
    np.testing.assert_allclose(track[4:-4], hertz, rtol=0.012)


@pytest.fixture(scope="module")
def real_speakers(speech):
    """Eight utterances of each of ten speakers of LibriSpeech, 2 to 4 s of each, and who speaks."""
    audio, speakers = [], []
    for subset in ("test-other", "train-clean-100"):
        for folder in sorted((speech / "LibriSpeech" / subset).iterdir()):
            paths = sorted(folder.rglob("*.flac"))
            for path in paths[:: max(1, len(paths) // 8)][:8]:
                audio.append(read_audio(path, SAMPLE_RATE)[: 4 * SAMPLE_RATE])
                speakers.append(folder.name)
    if len(set(speakers)) < 8:
        pytest.skip("fewer than 8 speakers of LibriSpeech")
    return audio, speakers


def _accuracy(measure, audio, speakers) -> float:
    """Share of the second halves of the speakers' utterances that lie nearest to their speaker's first half."""
    embeddings = measure.embed(audio, SAMPLE_RATE)
    assert embeddings.dtype == np.float32 and embeddings.ndim == 2 and np.isfinite(embeddings).all()
    known = np.array([speakers[:i].count(speaker) < 4 for i, speaker in enumerate(speakers)])
    voices = KnownVoices.fit(embeddings[known], list(np.array(speakers)[known]), standardise=measure.standardise)
    return float(np.mean(np.array(voices.nearest(embeddings[~known])) == np.array(speakers)[~known]))


def test_mel_statistics_tell_real_speakers_apart(real_speakers):
    """Measured: 40 of 40 clips of 4 s; chance is 0.1. A speaker's recordings also share their microphone."""
    assert _accuracy(MelStatistics(), *real_speakers) >= 0.9


def test_resemblyzer_tells_real_speakers_apart(real_speakers):
    """Measured: 40 of 40 clips of 4 s; chance is 0.1."""
    for package in ("torch", "resemblyzer"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    import torch

    torch.set_num_threads(1)  # its threads wait for each other on a busy machine: 30 times slower
    assert _accuracy(Resemblyzer(), *real_speakers) >= 0.9


@pytest.mark.parametrize("package", ["torch", "resemblyzer"])
def test_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "resemblyzer" and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    with pytest.raises(UserError, match=f"{package} is not installed"):
        Resemblyzer()
