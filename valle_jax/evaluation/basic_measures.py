"""Offline measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from valle_jax.errors import UserError
from valle_jax.evaluation.digits import edit_distance, transcribe_digits
from valle_jax.evaluation.recognition import WordRecogniser, normalise
from valle_jax.evaluation.sample import Figure, Measure, Sample, Values
from valle_jax.evaluation.similarity import MelStatistics


class WordErrors:
    """Words that pocketsphinx hears, of English or of the digits alone."""

    figures: tuple[Figure, ...] = (Figure("wer", of="errors", per="words"),)

    def __init__(self, words: Literal["pocketsphinx", "digits"] = "pocketsphinx") -> None:
        self.name = f"words_{words}"
        self._recogniser = WordRecogniser() if words == "pocketsphinx" else transcribe_digits

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
    figures: tuple[Figure, ...] = (Figure("similarity_prompt_resynthesised", of="similarity", best=1.0),)

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


MEASURES: dict[str, Callable[[], Measure]] = {
    "words_pocketsphinx": WordErrors,
    "words_digits": lambda: WordErrors("digits"),
    "similarity_mel-statistics": Similarity,
}


def get_measures(names: Sequence[str] | None) -> list[Measure]:
    """Measures by name; UserError for an unknown one."""
    chosen = names or ("words_pocketsphinx", "similarity_mel-statistics")
    for name in chosen:
        if name not in MEASURES:
            raise UserError(f"unknown measure {name!r}; known: {', '.join(MEASURES)}")
    return [MEASURES[name]() for name in chosen]
