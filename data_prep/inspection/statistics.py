"""Figures of a dataset: lengths from its index, codes and sources from all records or from a sample of them."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import tqdm

from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError


class CodeUsage:
    """How often each code is used.

    Attributes:
      counts: int64 [Q, V], by level and code.
    """

    def __init__(self, codebooks: int, codebook_size: int):
        self.counts = np.zeros((codebooks, codebook_size), np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Counts codes [T, Q]; UserError where one is outside its codebook."""
        levels, size = self.counts.shape
        if codes.size and codes.max() >= size:
            raise UserError(f"code {codes.max()} is outside the codebook of {size}; `valle inspect --verify` lists it")
        numbers = codes + np.arange(levels) * size
        self.counts += np.bincount(numbers.ravel(), minlength=self.counts.size).reshape(levels, size)

    @property
    def shares(self) -> np.ndarray:
        """Float64 [Q, V]: of the frames, 0 where there are none."""
        return self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)

    @property
    def dead(self) -> np.ndarray:
        """Int [Q]: codes that are never used."""
        return (self.counts == 0).sum(1)

    @property
    def entropy_bits(self) -> np.ndarray:
        """Float64 [Q]: of the distribution of codes, between 0 and log2 V; of few frames it comes out too low."""
        return entropy_bits(self.shares)


def entropy_bits(shares: np.ndarray) -> np.ndarray:
    """Entropy of distributions [..., V] in bits, [...]."""
    return -(shares * np.log2(shares, where=shares > 0, out=np.zeros_like(shares))).sum(-1)


def divergence_bits(mine: CodeUsage, others: CodeUsage) -> np.ndarray:
    """Jensen-Shannon divergence of the codes' distributions, float64 [Q]: 0 where they are the same, at most 1 bit."""
    middle = entropy_bits((mine.shares + others.shares) / 2)
    return np.maximum(middle - (mine.entropy_bits + others.entropy_bits) / 2, 0)


def distance(mine: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of two samples' cumulative distributions (Kolmogorov-Smirnov), in [0, 1]."""
    mine, others = np.sort(mine), np.sort(others)
    values = np.concatenate([mine, others])
    ranks = [np.searchsorted(sample, values, side="right") / len(sample) for sample in (mine, others)]
    return float(np.abs(ranks[0] - ranks[1]).max())


def seconds_of(dataset: Dataset) -> np.ndarray:
    """Duration of each utterance, float32 [N]."""
    return (dataset.index.n_frames / dataset.info.codec.frames_per_second).astype(np.float32)


def phoneme_rates(dataset: Dataset) -> np.ndarray:
    """Phonemes per second of each utterance, float32 [N]; stress marks and punctuation count."""
    return dataset.index.n_phonemes / seconds_of(dataset)


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What was found in the records that were read.

    Attributes:
      n_records, n_frames: how many.
      usage: of their codes.
      source_frames: frames by the first folder of the records' sources.
    """

    n_records: int
    n_frames: int
    usage: CodeUsage
    source_frames: collections.Counter[str]


def draw(n_records: int, count: int, seed: int) -> np.ndarray:
    """Numbers of `count` of the records, without repetition, ascending; all where there are not more."""
    if count >= n_records:
        return np.arange(n_records)
    return np.sort(np.random.default_rng(seed).choice(n_records, count, replace=False, shuffle=False))


def survey(dataset: Dataset, sample: int, seed: int, progress: bool = True) -> Survey:
    """Reads `sample` records, or all if it is 0; memory does not grow with their number.

    Raises:
      UserError: a record is damaged, or a code outside the codebook.
    """
    codec = dataset.info.codec
    usage = CodeUsage(codec.codebooks, codec.codebook_size)
    source_frames: collections.Counter[str] = collections.Counter()
    numbers = draw(len(dataset), sample or len(dataset), seed)
    for i in tqdm.tqdm(numbers, "codes", unit=" records", disable=not progress):
        utterance = dataset.read(int(i))
        usage.add(utterance.codes)
        source_frames[source_group(utterance.source)] += len(utterance.codes)
    return Survey(len(numbers), source_frames.total(), usage, source_frames)


def source_group(source: str) -> str:
    """The first folder of a source (of a URL, its bucket); `.` for a file in no folder."""
    scheme, mark, path = source.rpartition("://")
    folder, slash, _ = path.partition("/")
    return scheme + mark + folder if slash else "."
