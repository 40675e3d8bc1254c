"""What is measured, what a measure yields, and how that becomes the figures of a test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from valle_jax.evaluation.bootstrap import Estimate, bootstrap_median, bootstrap_ratio

Values = dict[str, float | str]  # of one utterance, by key; texts are for reports


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """An utterance that is measured; all audio is mono float32 [samples] at one rate.

    Attributes:
      trial: which trial it answers; the takes of several seeds share it.
      speaker: whose voice it should be.
      text: what it should say.
      audio: what was said.
      sample_rate: of all audio, in Hz.
      prompt: the voice prompt as it was recorded.
      prompt_resynthesised: the prompt through the codec.
      reference: the speaker's own recording of the text.
      info: `Audio.info` of the synthesis; empty for recordings.
    """

    trial: str
    speaker: str
    text: str
    audio: np.ndarray
    sample_rate: int
    prompt: np.ndarray | None = None
    prompt_resynthesised: np.ndarray | None = None
    reference: np.ndarray | None = None
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Figure:
    """How the values of utterances become one figure of a test set.

    Attributes:
      name: such as `wer`.
      of: key of the values that are summed.
      per: key of the values whose sum divides that of `of`; None: their number, so that the figure is the mean.
      median: the median of `of` instead.
      best: what a perfect test set has, and so which of two figures is the better.
    """

    name: str
    of: str
    per: str | None = None
    median: bool = False
    best: float = 0.0

    def estimate(self, values: Sequence[Values], trials: Sequence[str], *, seed: int = 0) -> Estimate | None:
        """The figure with its interval from trials drawn anew, each with all its takes; None where nothing has it.

        Args:
          values: of each sample, as `Measure.measure` yields them; those without the keys are left out.
          trials: `Sample.trial` of each.
          seed: of the draws.
        """
        keys = [self.of] if self.per is None else [self.of, self.per]
        kept = [i for i, row in enumerate(values) if all(key in row for key in keys)]
        if not kept:
            return None
        columns = [np.array([values[i][key] for i in kept], float) for key in keys]
        bootstrap = bootstrap_median if self.median else bootstrap_ratio
        return bootstrap(*columns, groups=[trials[i] for i in kept], seed=seed)


class Measure(Protocol):
    """Something that is measured on utterances.

    Attributes:
      name: says what is measured by what, such as `wer_hubert-large`: values of equal name are comparable.
      figures: what the values are summarised by.
    """

    name: str

    @property
    def figures(self) -> tuple[Figure, ...]: ...

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """The values of each sample; what cannot be had, for want of a prompt or reference, is left out."""
        ...
