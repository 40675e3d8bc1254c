"""Percentile bootstrap over utterances: how far a figure of a test set may be from that of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
      value: on the utterances as they are.
      low: lower end of the interval.
      high: upper end of the interval.
      n: utterances.
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)


def bootstrap_ratio(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Sum of numerators over sum of denominators, with an interval from utterances drawn anew with replacement.

    Without denominators it is the mean. Accuracies and error rates of a corpus are such ratios: errors over words.

    Args:
      numerators: [n], one per utterance.
      denominators: [n], positive sum.
      level: probability that the interval covers.
      resamples: test sets drawn.
      seed: of the draws.

    Raises:
      ValueError: no utterances, or not as many numerators as denominators.
    """
    top = np.asarray(numerators, float)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, float)
    if top.size == 0:
        raise ValueError("no utterances to estimate from")
    if top.shape != bottom.shape:
        raise ValueError(f"{top.size} numerators but {bottom.size} denominators")
    drawn = np.random.default_rng(seed).integers(0, top.size, (resamples, top.size))
    ratios = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), int(top.size))


def bootstrap_median(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Estimate:
    """The median [n] of the values, with its interval as in `bootstrap_ratio`."""
    sample = np.asarray(values, float)
    if sample.size == 0:
        raise ValueError("no utterances to estimate from")
    drawn = np.random.default_rng(seed).integers(0, sample.size, (resamples, sample.size))
    low, high = np.quantile(np.median(sample[drawn], axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(np.median(sample)), float(low), float(high), int(sample.size))
