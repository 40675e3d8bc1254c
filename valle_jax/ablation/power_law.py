"""L = a N^-b + c: how a loss falls with the size of what is trained, and towards what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

MIN_POINTS = 4  # three parameters, and one point more without which the fit says nothing
_EXPONENTS = np.geomspace(0.01, 4, 800)


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """A fitted curve.

    Attributes:
      a, b, c: of L = a N^-b + c; none is negative.
      low, high: of (a, b, c), the ends of 95 % intervals by the jackknife: fits without each of the points.
      error: root mean square of the residuals, in nats.
    """

    a: float
    b: float
    c: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    error: float

    def __call__(self, n: np.ndarray) -> np.ndarray:
        """The loss at sizes [n]."""
        return self.a * np.asarray(n, float) ** -self.b + self.c

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)


def fit_power_law(sizes: Sequence[float], losses: Sequence[float]) -> PowerLaw | None:
    """Least squares; None for fewer than MIN_POINTS sizes.

    Args:
      sizes: [n], such as parameters or hours, positive.
      losses: [n], in nats.
    """
    n, loss = np.asarray(sizes, float), np.asarray(losses, float)
    if len(np.unique(n)) < MIN_POINTS:
        return None
    whole = _fit(n, loss)
    without = np.array([_fit(np.delete(n, i), np.delete(loss, i)) for i in range(len(n))])
    # Tukey's jackknife: pseudo-values vary (n - 1) times as much as the fits that leave one out.
    spread = np.sqrt((len(n) - 1) / len(n) * np.square(without - without.mean(axis=0)).sum(axis=0))
    low, high = whole - 1.96 * spread, whole + 1.96 * spread
    residuals = whole[0] * n ** -whole[1] + whole[2] - loss
    a, b, c = whole.tolist()
    return PowerLaw(a, b, c, tuple(low.tolist()), tuple(high.tolist()), float(np.sqrt(np.square(residuals).mean())))


def _fit(n: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """(a, b, c): for each exponent of a grid the best a and c are known; the grid is refined around the best."""
    unit = np.exp(np.log(n).mean())  # sizes around 1: else a of a large exponent overflows
    exponents = _EXPONENTS
    for _ in range(3):
        candidates = [(*_linear((n / unit) ** -b, loss), b) for b in exponents]
        best = min(range(len(candidates)), key=lambda i: candidates[i][0])
        _, a, c, b = candidates[best]
        exponents = np.linspace(exponents[max(best - 1, 0)], exponents[min(best + 1, len(exponents) - 1)], 100)
    return np.array([a * unit**b, b, c])


def _linear(x: np.ndarray, loss: np.ndarray) -> tuple[float, float, float]:
    """(sum of squared residuals, a, c) of the best loss = a x + c with neither negative."""
    shifted = x - x.mean()
    a = max(0.0, float(shifted @ loss / (shifted @ shifted)))
    c = float(loss.mean() - a * x.mean())
    if c < 0:
        a, c = max(0.0, float(x @ loss / (x @ x))), 0.0
    return float(np.square(a * x + c - loss).sum()), a, c
