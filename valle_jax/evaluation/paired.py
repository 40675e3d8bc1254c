"""Whether two systems differ: bootstrap over the trials that both were given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.sample import Figure, Values

RESAMPLES = 2_000
NO_DIFFERENCE = "no difference shown"


def paired_difference(
    figure: Figure,
    values: Sequence[Values],
    trials: Sequence[str],
    baseline_values: Sequence[Values],
    baseline_trials: Sequence[str],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate | None:
    """A figure less the baseline's, on the trials that both have, with an interval from trials drawn anew in pairs.

    Args:
      figure: what is compared.
      values: of each sample.
      trials: `Sample.trial` of each; the takes of a trial are drawn together.
      baseline_values: of the baseline's samples.
      baseline_trials: likewise.
      level: probability that the interval covers.
      seed: of the draws.

    Returns:
      None where no trial has the figure in both.
    """
    mine, base = _by_trial(figure, values, trials), _by_trial(figure, baseline_values, baseline_trials)
    common = sorted(mine.keys() & base.keys())
    if not common:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(common), (RESAMPLES, len(common)))
    everything = np.arange(len(common))[None]
    of_mine, of_base = ([side[trial] for trial in common] for side in (mine, base))
    value = float(_resampled(figure, of_mine, everything)[0] - _resampled(figure, of_base, everything)[0])
    if not np.isfinite(value):
        return None
    differences = _resampled(figure, of_mine, drawn) - _resampled(figure, of_base, drawn)
    low, high = np.nanquantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), len(common))


def differs(difference: Estimate | None) -> bool:
    """Whether a difference is shown: its interval does not hold zero."""
    return difference is not None and (difference.low > 0 or difference.high < 0)


def verdict(figure: Figure, difference: Estimate | None) -> str:
    """`better`, `worse` or `no difference shown`, seen from what a perfect test set has.

    Where that lies between two values, such as a ratio of 1, the sign says nothing: `different`.
    """
    if difference is None or not differs(difference):
        return NO_DIFFERENCE
    if figure.best == 0:
        return "better" if difference.value < 0 else "worse"
    if figure.median:
        return "different"
    return "better" if difference.value > 0 else "worse"


def _by_trial(figure: Figure, values: Sequence[Values], trials: Sequence[str]) -> dict[str, np.ndarray]:
    """Numerators and denominators [takes, 2] of each trial."""
    groups = defaultdict(list)
    for row, trial in zip(values, trials, strict=True):
        if figure.of in row and (figure.per is None or figure.per in row):
            groups[trial].append((float(row[figure.of]), 1.0 if figure.per is None else float(row[figure.per])))
    return {trial: np.array(takes) for trial, takes in groups.items()}


def _resampled(figure: Figure, takes: Sequence[np.ndarray], drawn_RN: np.ndarray) -> np.ndarray:
    """The figure [R] of each resample of the trials' takes; NaN where its denominators sum to nothing."""
    if figure.median:
        return np.array([np.median(np.concatenate([takes[i][:, 0] for i in draw])) for draw in drawn_RN])
    sums_N2 = np.array([t.sum(axis=0) for t in takes])
    top_R, bottom_R = sums_N2[drawn_RN].sum(axis=1).T
    return np.divide(top_R, bottom_R, out=np.full_like(top_R, np.nan), where=bottom_R > 0)
