"""The figures of a quickstart: digits read, ends found, durations, voices and spectra, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from valle_jax.evaluation.bootstrap import Estimate, bootstrap_median, bootstrap_ratio
from valle_jax.evaluation.digits import edit_distance, transcribe_many
from valle_jax.evaluation.similarity import KnownVoices, MelStatistics, Resemblyzer, VoiceMeasure
from valle_jax.evaluation.spectral import mel_distortion
from valle_jax.quickstart.trial import Case, Spoken


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is measured of one system.

    Attributes:
      estimates: by name. `digit_accuracy`: 1 - (insertions + deletions + substitutions) / digits, read by pocketsphinx.
        `voice_nearest_M`: share whose voice is, of all test voices, nearest to the right one, by measure M;
        `similarity_M`: mean cosine to the right voice. `mel_distortion`: dB from the reference's codec resynthesis.
        Of generated speech also `end_of_speech`, the share that ended by itself, and `duration_ratio`, the median of
        the durations over the references'.
      heard: what was read in each case.
    """

    estimates: dict[str, Estimate]
    heard: list[str]


def voice_measures() -> list[VoiceMeasure]:
    """Those that run here; resemblyzer where it and torch are installed."""
    packages = ("torch", "resemblyzer")
    has_network = all(importlib.util.find_spec(package) is not None for package in packages)
    return [MelStatistics(), *([Resemblyzer()] if has_network else [])]


def score(
    cases: Sequence[Case], prompts: Sequence[np.ndarray], spoken: Mapping[str, Spoken], sample_rate: int
) -> dict[str, Scores]:
    """Measures every system.

    Args:
      cases: all test cases; a system may have spoken only the first of them.
      prompts: the cases' prompts after codec resynthesis, from which the voices are known: they say other texts.
      spoken: by system; `codec` must be among them.
      sample_rate: of all audio.
    """
    everything = [audio for said in spoken.values() for audio in said.audio]
    heard = iter(transcribe_many(everything, sample_rate))
    speakers = [case.speaker for case in cases]
    measures = voice_measures()
    known = {
        measure.name: KnownVoices.fit(measure.embed(prompts, sample_rate), speakers, standardise=measure.standardise)
        for measure in measures
    }
    scores = {}
    for name, said in spoken.items():
        n = len(said.audio)
        texts = [case.text.split() for case in cases[:n]]
        read = [next(heard) for _ in range(n)]
        errors = [edit_distance(text, words) for text, words in zip(texts, read, strict=True)]
        wrong = bootstrap_ratio(errors, [len(text) for text in texts])
        estimates = {"digit_accuracy": Estimate(1 - wrong.value, 1 - wrong.high, 1 - wrong.low, wrong.n)}
        if said.finished is not None:
            estimates["end_of_speech"] = bootstrap_ratio([float(finished) for finished in said.finished])
            ratios = [len(audio) / len(case.reference) for audio, case in zip(said.audio, cases[:n], strict=True)]
            estimates["duration_ratio"] = bootstrap_median(ratios)
        for measure in measures:
            embeddings, voices = measure.embed(said.audio, sample_rate), known[measure.name]
            right = [near == who for near, who in zip(voices.nearest(embeddings), speakers[:n], strict=True)]
            estimates[f"voice_nearest_{measure.name}"] = bootstrap_ratio([float(hit) for hit in right])
            estimates[f"similarity_{measure.name}"] = bootstrap_ratio(voices.similarity_to(embeddings, speakers[:n]))
        distances = [mel_distortion(a, b) for a, b in zip(spoken["codec"].audio[:n], said.audio, strict=True)]
        estimates["mel_distortion"] = bootstrap_ratio(distances)
        scores[name] = Scores(estimates, [" ".join(words) for words in read])
    return scores
