"""Spoken digits read by pocketsphinx with a grammar: how much of what was asked for is heard.

The grammar allows any sequence of digit words, so the reader cannot guess from a language model: a figure near 1 means
that the digits are there, about 0.1 to 0.3 is what unrelated digits get.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError

if TYPE_CHECKING:
    import pocketsphinx

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_GRAMMAR = f"#JSGF V1.0;\ngrammar digits;\npublic <digits> = ({' | '.join(DIGITS)})+;\n"
_SAMPLE_RATE = 16_000  # of the acoustic model
_PEAK = 0.6
_EDGE_DECIBELS = 40.0  # below the peak: silence, cut off at both ends, for the reader hears digits in it
# Both measured on 30 espeak voices: digital silence upsets the reader's normalisation (0.82 of the digits of clean
# speech read without noise, 0.96 with it), and without a price on phones it hears too many digits.
_NOISE = 1e-3
_PHONE_PENALTY = 0.3


def transcribe_digits(audio: np.ndarray, sample_rate: int) -> list[str]:
    """The digit words heard in float [samples]; empty for silence.

    Raises:
      UserError: pocketsphinx is not installed.
    """
    samples = resample(audio, sample_rate, _SAMPLE_RATE)
    loudness = np.abs(samples)
    peak = loudness.max(initial=0)
    if peak == 0:
        return []
    loud = np.flatnonzero(loudness > peak * 10 ** (-_EDGE_DECIBELS / 20))
    samples = samples[loud[0] : loud[-1] + 1] * (_PEAK / peak)
    samples = samples + np.random.default_rng(0).normal(0, _NOISE, len(samples))
    decoder = _decoder()
    decoder.start_utt()
    # The whole utterance at once: its mean spectrum is then known before the first digit is read.
    decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr.split() if hypothesis else []


class DigitRecogniser:
    """Hears digit words only, in this process: a recogniser for corpora of digits."""

    name = "digits"

    def __init__(self) -> None:
        """UserError where pocketsphinx is not installed."""
        _decoder()

    def transcribe(self, audio: Sequence[np.ndarray], sample_rate: int) -> list[str]:
        """The words heard in each utterance, float32 [samples]; "" for silence."""
        return [" ".join(transcribe_digits(samples, sample_rate)) for samples in audio]


def transcribe_many(audio: Sequence[np.ndarray], sample_rate: int, processes: int = 2) -> list[list[str]]:
    """`transcribe_digits` of many recordings, in that many processes."""
    _decoder()  # a missing package is reported here, not from a process
    reader = functools.partial(transcribe_digits, sample_rate=sample_rate)
    # Spawned: this process may hold JAX's threads, which do not survive a fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(reader, audio, chunksize=4))


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that turn one sequence of words into the other (Levenshtein)."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != heard))
    return row[-1]


@functools.cache
def _decoder() -> pocketsphinx.Decoder:
    """The reader of this process: the bundled US English acoustic model with a dictionary of ten words."""
    try:
        import pocketsphinx
    except ImportError:
        raise UserError("the digit reader is not installed: pip install 'valle-jax[quickstart]'") from None
    model = pocketsphinx.get_model_path("en-us")
    with open(os.path.join(model, "cmudict-en-us.dict"), encoding="utf-8") as lines:
        pronunciations = [line for line in lines if line.split()[0].partition("(")[0] in DIGITS]
    with tempfile.TemporaryDirectory() as folder:
        dictionary = os.path.join(folder, "digits.dict")
        with open(dictionary, "w", encoding="utf-8") as file:
            file.writelines(pronunciations)
        decoder = pocketsphinx.Decoder(
            hmm=os.path.join(model, "en-us"),
            dict=dictionary,
            lm=None,
            samprate=float(_SAMPLE_RATE),
            pip=_PHONE_PENALTY,
            loglevel="FATAL",
        )
    decoder.add_jsgf_string("digits", _GRAMMAR)
    decoder.activate_search("digits")
    return decoder
