"""Measures of pronunciation: what phones are heard, and how well the text fits what was said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError
from valle_jax.evaluation.sample import Figure, Sample, Values
from valle_jax.hearing.alignment import Aligner
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.pronunciation import PHONES, Pronunciations
from valle_jax.hearing.recognition import normalise

_RATE = 16_000


class PhonemeErrors:
    """Phoneme error rate of the corpus: pocketsphinx's loop of phones against the dictionary; stress is no matter.

    The recogniser knows which phones follow each other in English, and no words.
    """

    name = "phonemes_pocketsphinx"
    figures = (Figure("per", of="phoneme_errors", per="phonemes"),)

    def __init__(self) -> None:
        """Loads the models; UserError where pocketsphinx is not installed."""
        try:
            from pocketsphinx import Decoder, get_model_path
        except ImportError:
            raise UserError("pocketsphinx is not installed: pip install 'valle-jax[eval]'") from None
        self._decoder = Decoder(
            samprate=_RATE,
            loglevel="FATAL",
            lm=None,
            allphone=get_model_path("en-us/en-us-phone.lm.bin"),
            lw=2.0,
        )
        self._pronunciations = Pronunciations(self._decoder.lookup_word)

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`phoneme_errors`, `phonemes` (of the first pronunciations) and `heard_phonemes`."""
        values: list[Values] = []
        for sample in samples:
            said = [phone for word in normalise(sample.text) for phone in next(iter(self._pronunciations(word)), ())]
            heard = self._hear(sample.audio, sample.sample_rate)
            values.append(
                {
                    "phoneme_errors": edit_distance(said, heard),
                    "phonemes": len(said),
                    "heard_phonemes": " ".join(heard),
                }
            )
        return values

    def _hear(self, samples: np.ndarray, sample_rate: int) -> list[str]:
        pcm = np.clip(resample(samples, sample_rate, _RATE) * 32768, -32768, 32767).astype(np.int16)
        if not pcm.any():
            return []
        self._decoder.reinit_feat()  # forgets the channel mean of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        return [s.word for s in self._decoder.seg() or () if s.word in PHONES]


class AlignmentScore:
    """How well the text fits what was said, by forced alignment (`Alignment.score`), and where it does not at all."""

    name = "alignment_pocketsphinx"
    figures = (Figure("alignment_score", of="alignment_score", median=True), Figure("unaligned", of="unaligned"))

    def __init__(self) -> None:
        """Loads the model; UserError where pocketsphinx is not installed."""
        self._aligner = Aligner()

    def measure(self, samples: Sequence[Sample]) -> list[Values]:
        """`unaligned`, 1 or 0, and `alignment_score` where it is 0."""
        values: list[Values] = []
        for sample in samples:
            alignment = self._aligner.align(sample.audio, sample.sample_rate, sample.text)
            values.append(
                {"unaligned": 1.0} if alignment is None else {"unaligned": 0.0, "alignment_score": alignment.score}
            )
        return values
