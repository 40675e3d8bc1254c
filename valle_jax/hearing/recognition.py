"""What words are heard: recognisers by name, and the words of a text that they are compared with."""

from __future__ import annotations

import importlib.metadata
import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError

_RATE = 16_000
_WORDS = {"&": " and ", "%": " percent ", "+": " plus "}
_NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(st|nd|rd|th)?(?![\w])")


def normalise(text: str) -> list[str]:
    """The words of an English text as both sides of an error rate are compared.

    Lower case, accents removed, numbers spelled out ("1,203" is "one thousand two hundred and three", "1803" is a
    cardinal too, "2nd" is "second"), `&`, `%` and `+` said, hyphens and dashes are spaces, every other mark is dropped
    but the apostrophe inside a word. pocketsphinx's marks of variants, as in `the(2)`, are dropped.

    Raises:
      UserError: the text has digits and the package that spells them out is not installed.
    """
    text = re.sub(r"\(\d\)", "", text.lower().replace("’", "'"))
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    for mark, word in _WORDS.items():
        text = text.replace(mark, word)
    text = _NUMBER.sub(_spell, text)
    text = re.sub(r"\d+", lambda digits: " " + _spell_digits(digits[0]) + " ", text)  # left in names such as "b2"
    words = (word.strip("'") for word in re.sub(r"[^a-z']", " ", text).split())
    return [word for word in words if word]


def _spell(number: re.Match) -> str:
    digits, decimals, ordinal = number[1].replace(",", ""), number[2], number[3]
    kind = "ordinal" if ordinal and not decimals else "cardinal"
    return _num2words()(float(digits + decimals) if decimals else int(digits), to=kind)


def _spell_digits(digits: str) -> str:
    return _num2words()(int(digits))


def _num2words():
    try:
        from num2words import num2words
    except ImportError:
        raise UserError(
            "a text with digits is compared by its words, and num2words is not installed: pip install 'valle-jax[eval]'"
        ) from None
    return num2words


class Recogniser(Protocol):
    """Speech to text.

    Attributes:
      name: of the model, as reports show it.
    """

    name: str

    def transcribe(self, audio: Sequence[np.ndarray], sample_rate: int) -> list[str]:
        """The text heard in each utterance, float32 [samples]; "" for silence."""
        ...


TimedWord = tuple[str, float, float]
"""A word and when it is said: start and end in seconds."""


@runtime_checkable
class TimingRecogniser(Recogniser, Protocol):
    """One that can say when each word is heard."""

    def words(self, samples: np.ndarray, sample_rate: int) -> list[TimedWord] | None:
        """The words of an utterance, float32 samples [n], in order; None: this model does not tell."""
        ...


class WordRecogniser:
    """pocketsphinx with its bundled English acoustic and language model."""

    name = "pocketsphinx"

    def __init__(self) -> None:
        """Loads the models; UserError where pocketsphinx is not installed."""
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise UserError("pocketsphinx is not installed: pip install 'valle-jax[eval]'") from None
        self._decoder = Decoder(samprate=_RATE, loglevel="FATAL")

    def __call__(self, samples: np.ndarray, sample_rate: int) -> list[str]:
        """The words of an utterance, float32 samples [n]."""
        return normalise(self._decoder.hyp().hypstr) if self._hear(samples, sample_rate) else []

    def words(self, samples: np.ndarray, sample_rate: int) -> list[TimedWord]:
        """The words of an utterance, float32 samples [n], and when each is said, to 10 ms."""
        if not self._hear(samples, sample_rate):
            return []
        frame = 1 / self._decoder.config["frate"]
        found = [
            (" ".join(normalise(heard.word)), heard.start_frame * frame, (heard.end_frame + 1) * frame)
            for heard in self._decoder.seg()
            if heard.word[0] not in "<["  # silence and noise
        ]
        return [word for word in found if word[0]]

    def _hear(self, samples: np.ndarray, sample_rate: int) -> bool:
        """Decodes an utterance; whether there is a hypothesis."""
        pcm = np.clip(resample(samples, sample_rate, _RATE) * 32768, -32768, 32767).astype(np.int16)
        if not pcm.any():
            return False
        self._decoder.reinit_feat()  # forgets the channel mean of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        return self._decoder.hyp() is not None

    def transcribe(self, audio: Sequence[np.ndarray], sample_rate: int) -> list[str]:
        """The text heard in each utterance, float32 [samples]."""
        return [" ".join(self(samples, sample_rate)) for samples in audio]


def pocketsphinx_version() -> str:
    """The version that is installed; UserError where there is none."""
    try:
        return importlib.metadata.version("pocketsphinx")
    except importlib.metadata.PackageNotFoundError:
        raise UserError("pocketsphinx is not installed: pip install 'valle-jax[eval]'") from None


def get_recogniser(name: str) -> Recogniser:
    """A recogniser by name.

    Args:
      name: `pocketsphinx` (offline), `hubert-large` (P1's), `whisper`, `parakeet` (a FastConformer-Transducer, the
        nearest to P2's Conformer-Transducer that transformers has), or a model id or folder of transformers.

    Raises:
      UserError: a package is not installed, or weights cannot be had.
    """
    if name == WordRecogniser.name:
        return WordRecogniser()
    from valle_jax.hearing.transformers_models import TransformersRecogniser

    return TransformersRecogniser(name)
