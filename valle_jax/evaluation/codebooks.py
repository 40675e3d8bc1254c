"""How many of the NAR's codes are those of the recording."""

from __future__ import annotations

from collections.abc import Sequence

from valle_jax.evaluation.sample import Figure, Sample, Values


class CodebookAccuracy:
    """Share of frames whose code is the recording's, for codebooks 2..Q, where codebook 1 was the recording's.

    The NAR sees its own codes of the codebooks below, as in synthesis, and takes one code: this is no teacher-forced
    accuracy and no top-10.
    """

    name = "codebooks"

    def __init__(self, codebooks: int):
        """`codebooks` is Q."""
        numbers = range(2, codebooks + 1)
        self.figures = tuple(Figure(f"accuracy_codebook_{k}", f"correct_{k}", "frames", best=1) for k in numbers)

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`frames`, and `correct_K` of each codebook; nothing for what other systems said."""
        return [_values(sample) for sample in samples]


def _values(sample: Sample) -> Values:
    if "correct" not in sample.info:
        return {}
    correct = {f"correct_{k}": float(count) for k, count in enumerate(sample.info["correct"], start=2)}
    return {"frames": float(sample.info["frames"]), **correct}
