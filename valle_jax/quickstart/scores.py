"""The figures of a quickstart: digits read, ends found, durations, voices and spectra, with bootstrap intervals."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from valle_jax.evaluation.bootstrap import Estimate
from valle_jax.evaluation.measures import SpectralDistortion
from valle_jax.evaluation.paired import paired_difference
from valle_jax.evaluation.sample import Figure, Sample, Values
from valle_jax.hearing.digits import edit_distance, transcribe_many
from valle_jax.hearing.similarity import KnownVoices, MelStatistics, Resemblyzer, VoiceMeasure
from valle_jax.quickstart.trial import Case, Spoken

_FIGURES = (
    Figure("digit_accuracy", of="digits_right", per="digits", best=1),
    Figure("end_of_speech", of="finished", best=1),
    Figure("duration_ratio", of="duration_ratio", median=True, best=1),
    *SpectralDistortion.figures,
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
    read = {name: [next(heard) for _ in said.audio] for name, said in spoken.items()}
    values = {}
    for name, said in spoken.items():
        targets = spoken["codec"].audio
        samples = [
            Sample(case.name, case.speaker, case.text, audio, sample_rate, reference=target)
            for case, audio, target in zip(cases, said.audio, targets, strict=False)
        ]
        rows = [
            _utterance(case, words, audio) for case, words, audio in zip(cases, read[name], said.audio, strict=False)
        ]
        ends = [{"finished": finished} for finished in said.finished] if said.finished else [{}] * len(samples)
        spectra = SpectralDistortion().measure(samples)
        voices = [_voices(measure, known[measure.name], samples) for measure in measures]
        values[name] = [dict(collections.ChainMap(*row)) for row in zip(rows, ends, spectra, *voices, strict=True)]
    trials = [case.name for case in cases]
    of_voices = (f"{what}_{measure.name}" for measure in measures for what in ("voice_nearest", "similarity"))
    figures = (*_FIGURES, *(Figure(name, of=name, best=1) for name in of_voices))

    def of_system(name: str) -> Scores:
        mine, base = (values[name], trials[: len(values[name])]), (values["valle"], trials[: len(values["valle"])])
        estimates = {figure.name: figure.estimate(*mine) for figure in figures}
        changes = {figure.name: paired_difference(figure, *mine, *base) for figure in figures}
        return Scores(_known(estimates), _known(changes), [" ".join(words) for words in read[name]])

    return {name: of_system(name) for name in spoken}


def _utterance(case: Case, words: list[str], audio: np.ndarray) -> Values:
    """Of what was said: how many digits of the text were read in it, and its length."""
    text = case.text.split()
    return {
        "digits": len(text),
        "digits_right": len(text) - edit_distance(text, words),
        "duration_ratio": len(audio) / len(case.reference),
    }


def _voices(measure: VoiceMeasure, known: KnownVoices, samples: Sequence[Sample]) -> list[Values]:
    """Whether the right voice is the nearest one, and how similar it is."""
    embeddings = measure.embed([sample.audio for sample in samples], samples[0].sample_rate)
    speakers = [sample.speaker for sample in samples]
    rows = zip(known.nearest(embeddings), known.similarity_to(embeddings, speakers), speakers, strict=True)
    return [
        {
            f"voice_nearest_{measure.name}": nearest == speaker,
            f"similarity_{measure.name}": float(similarity),
        }
        for nearest, similarity, speaker in rows
    ]


def _known(estimates: Mapping[str, Estimate | None]) -> dict[str, Estimate]:
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}
