"""Fits the codebooks of the `mel_rvq` codec by residual k-means on recordings of speech.

The shipped file was made by (248 + 3 speakers of LibriSpeech train-clean-100, about 2 h, CC BY 4.0):

    python -m data_prep.fit_mel_rvq speech/voices speech/LibriSpeech/train-clean-100 --out valle_jax/codec/mel_rvq.npz

The same seed, recordings and library versions give the same file.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import numpy as np
import tyro
from tqdm import tqdm

from valle_jax.audio import read_audio
from valle_jax.codec import mel_rvq
from valle_jax.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")


@dataclasses.dataclass(frozen=True)
class FitMelRVQ:
    """Fits the mel_rvq codebooks. Example: `python -m data_prep.fit_mel_rvq speech/voices --out mine.npz`."""

    folders: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders of recordings, searched with their subfolders."""
    out: pathlib.Path
    """Weight file to write (.npz)."""
    frames: int = 250_000
    """Frames that k-means sees, drawn evenly from the recordings (75 a second)."""
    codebooks: int = 8
    """Residual levels."""
    entries: int = 1024
    """Entries per level."""
    iterations: int = 15
    """k-means steps per level."""
    cepstra: int = 30
    """Cepstral coefficients that level 1 is searched by: fewer keep less of the pitch."""
    loudness_weight: float = 0.6
    """Weight of coefficient 0, the loudness, in level 1; the others weigh up to 1."""
    switch_cost: float = 6.0
    """Squared cepstral distance (nepers, orthonormal) that a change of the first code must save."""
    gain_db: float = 6.0
    """Recordings are scaled by up to this many decibels up or down, so that loudness is covered."""
    seed: int = 0
    """Of the drawn frames, the gains and the first centroids."""

    def run(self) -> None:
        rng = np.random.default_rng(self.seed)
        frames = self._read(rng)
        projection = cepstral_projection(self.cepstra, self.loudness_weight)
        points, books = frames @ projection, []
        for level in range(self.codebooks):
            labels = kmeans_labels(points, self.entries, self.iterations, rng)
            # float16 now, so that the next level is fitted to the residual that the codec will see
            entries = means(frames, labels, self.entries).astype(np.float16)
            entries[0] = 0  # silence, see the codec
            books.append(entries)
            search = entries.astype(np.float32) @ projection if level == 0 else entries.astype(np.float32)
            frames = frames - entries.astype(np.float32)[nearest(points, search)]
            points = frames
            print(f"level {level + 1}: {np.square(frames).mean():.4f} mean squared error (nepers)")
        np.savez(
            self.out,
            codebooks=np.stack(books),
            projection=projection,
            switch_cost=np.float32(self.switch_cost),
        )
        print(f"wrote {self.out} ({self.out.stat().st_size / 1e6:.2f} MB)")

    def _read(self, rng: np.random.Generator) -> np.ndarray:
        """A random subset of all folders' frames [frames, n_mels]."""
        paths = sorted(p for folder in self.folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise UserError(f"no recordings ({', '.join(SUFFIXES)}) in {', '.join(map(str, self.folders))}")
        pieces = []
        for path in tqdm(paths, unit="file"):
            gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
            pieces.append(mel_rvq.log_mel(read_audio(path, mel_rvq.SAMPLE_RATE) * np.float32(gain)))
        frames = np.concatenate(pieces)
        kept = rng.permutation(len(frames))[: self.frames]
        if len(kept) < 4 * self.entries:
            raise UserError(f"only {len(kept)} frames in {len(paths)} recordings; {self.entries} entries need 4 each")
        print(f"{len(paths)} recordings, {len(frames) / 75 / 3600:.2f} h; k-means on {len(kept)} frames")
        return frames[kept]


def cepstral_projection(cepstra: int, loudness_weight: float) -> np.ndarray:
    """Log-mel to liftered cepstra, float32 [n_mels, cepstra]: an orthonormal DCT-II with a raised-cosine taper."""
    n, k = np.arange(mel_rvq.N_MELS)[:, None], np.arange(cepstra)[None]
    basis = np.cos(np.pi * (n + 0.5) * k / mel_rvq.N_MELS) * np.sqrt(2 / mel_rvq.N_MELS)
    basis[:, 0] *= np.sqrt(0.5)
    taper = 0.5 + 0.5 * np.cos(np.pi * np.arange(cepstra) / cepstra)
    taper[0] = loudness_weight
    return (basis * taper).astype(np.float32)


def kmeans_labels(points: np.ndarray, entries: int, iterations: int, rng: np.random.Generator) -> np.ndarray:
    """Lloyd's algorithm on points [N, D]; entry 0 stays the zero vector. Returns labels int [N].

    An entry without points is put on one drawn in proportion to its squared error.
    """
    centroids = points[rng.choice(len(points), entries, replace=False)]
    for _ in range(iterations):
        centroids[0] = 0
        labels = nearest(points, centroids)
        dead = np.flatnonzero(np.bincount(labels, minlength=entries)[1:] == 0) + 1
        error = np.square(points - centroids[labels]).sum(axis=1, dtype=np.float64)
        centroids = means(points, labels, entries)
        if len(dead):
            centroids[dead] = points[rng.choice(len(points), len(dead), replace=False, p=error / error.sum())]
    centroids[0] = 0
    return nearest(points, centroids)


def nearest(points: np.ndarray, entries: np.ndarray, block: int = 8192) -> np.ndarray:
    """Index int [N] of the nearest of entries [E, D] to each of points [N, D]."""
    blocks = (points[start : start + block] for start in range(0, len(points), block))
    return np.concatenate([mel_rvq.distances(part, entries).argmin(axis=1) for part in blocks])


def means(points: np.ndarray, labels: np.ndarray, entries: int) -> np.ndarray:
    """Mean of the points [N, D] of each label, float32 [entries, D]; 0 where there is none."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=entries)
    starts = np.cumsum(counts) - counts
    used = counts > 0
    result = np.zeros((entries, points.shape[1]), np.float32)
    result[used] = np.add.reduceat(points[order], starts[used], axis=0) / counts[used, None]
    return result


if __name__ == "__main__":
    try:
        tyro.cli(FitMelRVQ).run()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
