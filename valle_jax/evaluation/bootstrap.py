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
      n: utterances, or groups of them, that were drawn from.
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
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Sum of numerators over sum of denominators, with an interval from utterances drawn anew with replacement.

    Without denominators it is the mean. Accuracies and error rates of a corpus are such ratios: errors over words.

    Args:
      numerators: [n], one per utterance.
      denominators: [n], positive sum.
      groups: [n], what is drawn together, such as the takes of a text: they are no independent evidence. None: each
        utterance by itself.
      level: probability that the interval covers.
      resamples: test sets drawn.
      seed: of the draws.

    Raises:
      ValueError: no utterances, not as many numerators as denominators, or denominators whose sum is not positive.
    """
    top = np.asarray(numerators, float)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, float)
    if top.size == 0:
        raise ValueError("no utterances to estimate from")
    if top.shape != bottom.shape:
        raise ValueError(f"{top.size} numerators but {bottom.size} denominators")
    if bottom.sum() <= 0:
        raise ValueError("the denominators' sum is not positive")
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1]
        top, bottom = np.bincount(group, top), np.bincount(group, bottom)
    drawn = np.random.default_rng(seed).integers(0, top.size, (resamples, top.size))
    tops, bottoms = top[drawn].sum(axis=1), bottom[drawn].sum(axis=1)
    ratios = tops[bottoms > 0] / bottoms[bottoms > 0]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), int(top.size))


def bootstrap_median(
    values: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """The median of the values [n], with its interval as in `bootstrap_ratio`."""
    sample = np.asarray(values, float)
    if sample.size == 0:
        raise ValueError("no utterances to estimate from")
    group = np.arange(sample.size) if groups is None else np.unique(groups, return_inverse=True)[1]
    n = int(group.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n))
    times = np.zeros((resamples, n), int)  # that each group was drawn
    np.add.at(times, (np.arange(resamples)[:, None], drawn), 1)
    order = np.argsort(sample)
    before = np.cumsum(times[:, group[order]], axis=1)  # values drawn up to each, in ascending order
    middle = [(before > (before[:, -1:] - odd) // 2).argmax(axis=1) for odd in (0, 1)]
    medians = sample[order][np.stack(middle)].mean(axis=0)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(np.median(sample)), float(low), float(high), n)
