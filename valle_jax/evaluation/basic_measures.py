"""Offline measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valle_jax.evaluation.digits import edit_distance
from valle_jax.evaluation.recognition import WordRecogniser, normalise
from valle_jax.evaluation.sample import Figure, Measure, Sample, Values
from valle_jax.evaluation.similarity import MelStatistics


class WordErrors:
    """Words that pocketsphinx hears."""

    name = "wer_pocketsphinx"
    figures: tuple[Figure, ...] = (Figure("wer", of="errors", per="words"),)

    def __init__(self) -> None:
        self._recogniser = WordRecogniser()

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """Errors, words and what was heard."""
        values: list[Values] = []
        for sample in samples:
            heard = self._recogniser(sample.audio, sample.sample_rate)
            said = normalise(sample.text)
            values.append({"errors": edit_distance(said, heard), "words": len(said), "heard": " ".join(heard)})
        return values


class Similarity:
    """Cosine to the resynthesised prompt."""

    name = "similarity_mel-statistics"
    figures: tuple[Figure, ...] = (Figure("similarity", of="similarity", best=1.0),)

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """The cosine; nothing for empty audio."""
        embedder = MelStatistics()
        values: list[Values] = []
        for sample in samples:
            if not len(sample.audio) or sample.prompt_resynthesised is None:
                values.append({})
                continue
            a, b = embedder.embed([sample.audio, sample.prompt_resynthesised], sample.sample_rate)
            values.append({"similarity": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))})
        return values


def get_measures(names: Sequence[str] | None) -> list[Measure]:
    """Measures by name."""
    return [WordErrors(), Similarity()]
