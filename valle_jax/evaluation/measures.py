"""The measures of the papers' tables, as values of utterances and figures of test sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valle_jax.audio import resample
from valle_jax.codec.mel_rvq import SAMPLE_RATE
from valle_jax.evaluation.sample import Figure, Sample, Values
from valle_jax.evaluation.spectral import mel_cepstral_distortion, mel_distortion
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import Recogniser, normalise
from valle_jax.hearing.similarity import VoiceMeasure
from valle_jax.inference.takes import SILENCE, problems


class WordErrors:
    """Word and character error rate of the corpus, of what a recogniser hears."""

    figures = (Figure("wer", of="word_errors", per="words"), Figure("cer", of="letter_errors", per="letters"))

    def __init__(self, recogniser: Recogniser):
        self.name = f"words_{recogniser.name}"
        self._recogniser = recogniser

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`word_errors`, `words`, `letter_errors`, `letters` (spaces between words count) and `heard`."""
        values: list[Values] = []
        for sample in samples:
            said = normalise(sample.text)
            heard = normalise(self._recogniser.transcribe([sample.audio], sample.sample_rate)[0])
            values.append(
                {
                    "word_errors": edit_distance(said, heard),
                    "words": len(said),
                    "letter_errors": edit_distance(" ".join(said), " ".join(heard)),
                    "letters": len(" ".join(said)),
                    "heard": " ".join(heard),
                }
            )
        return values


class Similarity:
    """Cosine of a speaker model's embeddings of what was said and of recordings of the speaker."""

    _OTHERS = ("prompt", "prompt_resynthesised", "reference")
    figures = tuple(Figure(f"similarity_{other}", of=f"similarity_{other}", best=1) for other in _OTHERS)

    def __init__(self, voice: VoiceMeasure):
        """`voice` yields vectors whose cosine means something as they are, so not `MelStatistics`."""
        if voice.standardise:
            raise ValueError(f"the vectors of {voice.name} are compared by `KnownVoices`")
        self.name = f"similarity_{voice.name}"
        self._voice = voice

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`similarity_prompt`, `similarity_prompt_resynthesised`, `similarity_reference`; 0 for silent speech."""
        return [self._values(sample) for sample in samples]

    def _values(self, sample: Sample) -> Values:
        others = {f"similarity_{name}": getattr(sample, name) for name in self._OTHERS}
        others = {name: audio for name, audio in others.items() if audio is not None and not _is_silent(audio)}
        if _is_silent(sample.audio) or not others:
            return dict.fromkeys(others, 0.0)
        vectors = self._voice.embed([sample.audio, *others.values()], sample.sample_rate)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return dict(zip(others, (vectors[1:] @ vectors[0]).tolist(), strict=True))


class SpectralDistortion:
    """Mel-cepstral distortion and distance of mel spectra from the reference, in dB, after time warping."""

    name = "spectral_distortion"
    figures = (
        Figure("mel_cepstral_distortion", of="mel_cepstral_distortion"),
        Figure("mel_distortion", of="mel_distortion"),
    )

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`mel_cepstral_distortion` and `mel_distortion` where there is a reference and something was said."""
        return [self._values(sample) for sample in samples]

    def _values(self, sample: Sample) -> Values:
        if sample.reference is None or not len(sample.audio):
            return {}
        a, b = (resample(audio, sample.sample_rate, SAMPLE_RATE) for audio in (sample.reference, sample.audio))
        return {"mel_cepstral_distortion": mel_cepstral_distortion(a, b), "mel_distortion": mel_distortion(a, b)}


class Duration:
    """Length as a share of the reference's."""

    name = "duration"
    figures = (Figure("duration_ratio", of="duration_ratio", median=True, best=1),)

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`seconds`, and `duration_ratio` where there is a reference."""
        values: list[Values] = []
        for sample in samples:
            row: Values = {"seconds": len(sample.audio) / sample.sample_rate}
            if sample.reference is not None:
                row["duration_ratio"] = len(sample.audio) / len(sample.reference)
            values.append(row)
        return values


class BadTakes:
    """Share of takes with a problem, of any kind and of each, as `takes.problems` defines them."""

    name = "bad_takes"
    _KINDS = ("no_end_of_speech", "silent", "long_silence", "too_short", "too_long", "loop")
    figures = (Figure("bad_takes", of="bad"), *(Figure(kind, of=kind) for kind in _KINDS))

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`bad` and each kind: 1 or 0."""
        values: list[Values] = []
        for sample in samples:
            seconds = None if sample.reference is None else len(sample.reference) / sample.sample_rate
            finished = bool(sample.info.get("finished", True))
            found = problems(
                sample.audio, sample.sample_rate, sample.text, finished=finished, reference_seconds=seconds
            )
            values.append({"bad": float(bool(found)), **{kind: float(kind in found) for kind in self._KINDS}})
        return values


def _is_silent(audio: np.ndarray) -> bool:
    return np.abs(audio).max(initial=0) < SILENCE
