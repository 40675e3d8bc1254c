"""The figures of a quickstart: digits read, ends found, durations, voices and spectra, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.digits import edit_distance, transcribe_many
from valle_jax.evaluation.paired import paired_difference
from valle_jax.evaluation.sample import Figure, Values
from valle_jax.evaluation.similarity import KnownVoices, MelStatistics, Resemblyzer, VoiceMeasure
from valle_jax.evaluation.spectral import mel_cepstral_distortion, mel_distortion
from valle_jax.quickstart.trial import Case, Spoken

_FIGURES = (
    Figure("digit_accuracy", of="digits_right", per="digits", best=1),
    Figure("end_of_speech", of="finished", best=1),
    Figure("duration_ratio", of="duration_ratio", median=True, best=1),
    Figure("mel_cepstral_distortion", of="mel_cepstral_distortion"),
    Figure("mel_distortion", of="mel_distortion"),
)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is measured of one system.

    Attributes:
      estimates: by name. `digit_accuracy`: 1 - (insertions + deletions + substitutions) / digits, read by pocketsphinx.
        `voice_nearest_M`: share whose voice is, of all test voices, nearest to the right one, by measure M;
        `similarity_M`: mean cosine to the right voice. `mel_cepstral_distortion` and `mel_distortion`: dB from the
        reference's codec resynthesis; the second also counts harmonics and, of drawn codes, that they scatter.
        `duration_ratio`: the median of the durations over the references'. Of generated speech also `end_of_speech`,
        the share that ended by itself.
      changes: each estimate less that of the system `valle` on the same cases, drawn in pairs.
      heard: what was read in each case.
    """

    estimates: dict[str, Estimate]
    changes: dict[str, Estimate]
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
      spoken: by system; `codec` and `valle` must be among them.
      sample_rate: of all audio.
    """
    heard = iter(transcribe_many([audio for said in spoken.values() for audio in said.audio], sample_rate))
    speakers = [case.speaker for case in cases]
    measures = voice_measures()
    known = {
        measure.name: KnownVoices.fit(measure.embed(prompts, sample_rate), speakers, standardise=measure.standardise)
        for measure in measures
    }
    trials = [case.name for case in cases]
    read = {name: [next(heard) for _ in said.audio] for name, said in spoken.items()}
    values: dict[str, list[Values]] = {}
    for name, said in spoken.items():
        values[name] = [
            _values(case, words, audio, target)
            for case, words, audio, target in zip(cases, read[name], said.audio, spoken["codec"].audio, strict=False)
        ]
        for row, finished in zip(values[name], said.finished or (), strict=False):
            row["finished"] = finished
        for measure in measures:
            embeddings, voices = measure.embed(said.audio, sample_rate), known[measure.name]
            nearest = voices.nearest(embeddings)
            similarities = voices.similarity_to(embeddings, speakers[: len(nearest)])
            for row, voice, similarity, speaker in zip(values[name], nearest, similarities, speakers, strict=False):
                row[f"voice_nearest_{measure.name}"] = voice == speaker
                row[f"similarity_{measure.name}"] = float(similarity)
    of_voices = (f"{what}_{measure.name}" for measure in measures for what in ("voice_nearest", "similarity"))
    figures = (*_FIGURES, *(Figure(name, of=name, best=1) for name in of_voices))

    def of_system(name: str) -> Scores:
        mine, base = (values[name], trials[: len(values[name])]), (values["valle"], trials[: len(values["valle"])])
        estimates = {figure.name: figure.estimate(*mine) for figure in figures}
        changes = {figure.name: paired_difference(figure, *mine, *base) for figure in figures}
        return Scores(_known(estimates), _known(changes), [" ".join(words) for words in read[name]])

    return {name: of_system(name) for name in spoken}


def _values(case: Case, words: list[str], audio: np.ndarray, target: np.ndarray) -> Values:
    """What needs one utterance alone: the words that were read of it, and the codec's resynthesis of its reference."""
    text = case.text.split()
    return {
        "digits": len(text),
        "digits_right": len(text) - edit_distance(text, words),
        "duration_ratio": len(audio) / len(case.reference),
        "mel_cepstral_distortion": mel_cepstral_distortion(target, audio),
        "mel_distortion": mel_distortion(target, audio),
    }


def _known(estimates: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}
