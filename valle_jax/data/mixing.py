"""How several datasets share a stream of rows."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from valle_jax.errors import UserError

_LONGEST_CYCLE = 1000


class Mixture:
    """A repeating pattern of rows in which each dataset has its share, spread evenly.

    The pattern is the shortest of at most 1,000 rows that has the weights' exact ratio; where there is none, 1,000 rows
    by largest remainder, in which every dataset has at least one.

    Attributes:
      counts: rows of each dataset in a cycle.

    Raises:
      UserError: a weight is not positive.
    """

    def __init__(self, weights: Sequence[float]):
        if not weights or min(weights) <= 0:
            raise UserError(f"dataset weights must be positive, not {', '.join(map(str, weights))}")
        self.counts = _counts([weight / sum(weights) for weight in weights])
        self._cycle = sum(self.counts)
        self._places: list[list[int]] = [[] for _ in weights]  # in the cycle, of each dataset
        self._dataset: list[int] = []
        for place in range(self._cycle):
            # The dataset that is furthest behind its share is next.
            behind = [n * (place + 1) - self._cycle * len(p) for n, p in zip(self.counts, self._places, strict=True)]
            dataset = behind.index(max(behind))
            self._places[dataset].append(place)
            self._dataset.append(dataset)

    def __getitem__(self, row: int) -> tuple[int, int]:
        """The dataset of a row of the stream, and which of the dataset's rows it is."""
        cycle, place = divmod(row, self._cycle)
        dataset = self._dataset[place]
        return dataset, cycle * self.counts[dataset] + bisect.bisect_left(self._places[dataset], place)


def _counts(shares: Sequence[float]) -> list[int]:
    for cycle in range(1, _LONGEST_CYCLE + 1):
        counts = [round(share * cycle) for share in shares]
        if all(n > 0 and abs(share * cycle - n) < 1e-9 * cycle for share, n in zip(shares, counts, strict=True)):
            return counts
    counts = [max(1, int(share * _LONGEST_CYCLE)) for share in shares]
    remainders = [share * _LONGEST_CYCLE - n for share, n in zip(shares, counts, strict=True)]
    for _ in range(_LONGEST_CYCLE - sum(counts)):
        largest = remainders.index(max(remainders))
        counts[largest] += 1
        remainders[largest] -= 1
    return counts
