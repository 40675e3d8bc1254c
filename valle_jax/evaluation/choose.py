"""Measures by name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence

from valle_jax.errors import UserError
from valle_jax.evaluation.codebooks import CodebookAccuracy
from valle_jax.evaluation.measures import BadTakes, Duration, Similarity, SpectralDistortion, WordErrors
from valle_jax.evaluation.phonemes import AlignmentScore, PhonemeErrors
from valle_jax.evaluation.sample import Measure
from valle_jax.hearing.digits import DigitRecogniser
from valle_jax.hearing.recognition import get_recogniser
from valle_jax.hearing.similarity import get_voice

WORDS, SIMILARITY = "words_", "similarity_"
OTHERS: dict[str, Callable[[], Measure]] = {
    SpectralDistortion.name: SpectralDistortion,
    Duration.name: Duration,
    BadTakes.name: BadTakes,
}
# Measured only when named.
ON_REQUEST: dict[str, Callable[[], Measure]] = {PhonemeErrors.name: PhonemeErrors, AlignmentScore.name: AlignmentScore}
OFFLINE = ("words_pocketsphinx", "similarity_resemblyzer", *OTHERS, CodebookAccuracy.name)


def get_measures(names: Sequence[str] | None, codebooks: int) -> list[Measure]:
    """Measures by the names that they have in results.

    Args:
      names: `words_RECOGNISER` (see `get_recogniser`; also `words_digits`, for corpora of digits), `similarity_VOICE`
        (see `get_voice`), `codebooks`, or one of `OTHERS` and `ON_REQUEST`; None: `OFFLINE`, without resemblyzer where
        it or torch is not installed, which is said.
      codebooks: of the model's codec.

    Raises:
      UserError: an unknown name, a package that is not installed, weights that cannot be had.
    """
    if names is None:
        names = OFFLINE
        if not all(importlib.util.find_spec(package) for package in ("resemblyzer", "torch")):
            print("resemblyzer or torch is not installed: speaker similarity is left out", file=sys.stderr)
            names = [name for name in names if not name.startswith(SIMILARITY)]
    return [CodebookAccuracy(codebooks) if name == CodebookAccuracy.name else _measure(name) for name in names]


def _measure(name: str) -> Measure:
    others = OTHERS | ON_REQUEST
    if name in others:
        return others[name]()
    if name == WORDS + DigitRecogniser.name:
        return WordErrors(DigitRecogniser())
    if name.startswith(WORDS):
        return WordErrors(get_recogniser(name.removeprefix(WORDS)))
    if name.startswith(SIMILARITY):
        return Similarity(get_voice(name.removeprefix(SIMILARITY)))
    known = ", ".join([f"{WORDS}RECOGNISER", f"{SIMILARITY}VOICE", *others, CodebookAccuracy.name])
    raise UserError(f"unknown measure {name!r}; known: {known}")
