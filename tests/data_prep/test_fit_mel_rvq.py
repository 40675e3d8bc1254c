"""Fitting the embedded codec's codebooks."""

import numpy as np
import pytest

from data_prep.fit_mel_rvq import FitMelRVQ, kmeans_labels, means, nearest
from valle_jax.audio import write_audio
from valle_jax.codec import get_codec
from valle_jax.errors import UserError


def test_fitted_weights_are_a_codec_and_follow_the_seed(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(3):
        write_audio(tmp_path / f"{n}.wav", 0.1 * rng.normal(size=48_000) * np.linspace(0, 1, 48_000), 24_000)
    hashes = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        out = tmp_path / f"{name}.npz"
        FitMelRVQ(folders=(tmp_path,), out=out, codebooks=2, entries=16, iterations=3, seed=seed).run()
        codec = get_codec("mel_rvq", str(out))
        assert (codec.info.codebooks, codec.info.codebook_size) == (2, 16)
        hashes.append(codec.info.weight_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_kmeans_finds_clusters_and_keeps_silence_at_entry_zero():
    """Far apart clusters, one of them at the origin: entry 0 gets that one, and no entry stays without points."""
    rng = np.random.default_rng(0)
    centres = np.concatenate([np.zeros((1, 5)), 100 * rng.normal(size=(7, 5))]).astype(np.float32)
    points = np.repeat(centres, 50, axis=0) + rng.normal(size=(400, 5)).astype(np.float32)
    labels = kmeans_labels(points, 8, 20, rng)
    assert (labels[:50] == 0).all()
    assert len(np.unique(labels)) == 8


def test_nearest_and_means_against_plain_loops():
    rng = np.random.default_rng(0)
    points, entries = rng.normal(size=(100, 3)).astype(np.float32), rng.normal(size=(7, 3)).astype(np.float32)
    labels = nearest(points, entries, block=32)
    assert labels.tolist() == [int(np.square(entries - p).sum(axis=1).argmin()) for p in points]
    expected = [points[labels == k].mean(axis=0) if (labels == k).any() else np.zeros(3) for k in range(8)]
    np.testing.assert_allclose(means(points, labels, 8), expected, atol=1e-6)  # float32 sums in another order


def test_no_recordings_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no recordings"):
        FitMelRVQ(folders=(tmp_path,), out=tmp_path / "out.npz").run()
    write_audio(tmp_path / "short.wav", np.zeros(2400), 24_000)
    with pytest.raises(UserError, match="entries need 4 each"):
        FitMelRVQ(folders=(tmp_path,), out=tmp_path / "out.npz").run()
