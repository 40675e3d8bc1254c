"""Text to IPA phonemes by espeak-ng through the `phonemizer` package: the extra `text`, no system package."""

from __future__ import annotations

import difflib
import functools
import logging
import re
from collections.abc import Sequence

from valle_jax.errors import UserError
from valle_jax.text.vocabulary import normalize

# Kept in the phoneme string, because they tell pauses and intonation. A dot, comma or colon between digits belongs to
# the number ("1,000.5", "10:30").
_PUNCTUATION = re.compile(
    r"(\s*(?:[;!?¡¿—…\"«»“”(){}\[\]]|(?<![0-9])[,.:]|[,.:](?![0-9]))[;:,.!?¡¿—…\"«»“”(){}\[\]\s]*)"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Phonemizer:
    """Phonemizes texts of one language; one per process (espeak keeps its state in globals).

    Output is IPA in NFD with stress marks; punctuation stays where it was. Words that espeak reads in another language
    are kept, without its language flags. Texts wholly in upper case (LibriSpeech) are lowered first: espeak would spell
    some of their words out.
    """

    def __init__(self, language: str = "en-us"):
        """`language` is an espeak-ng code.

        Raises:
          UserError: unknown language (near ones are listed), or the extra `text` is not installed.
        """
        known = languages()
        if language not in known:
            raise UserError(f"unknown language {language!r}; near ones: {', '.join(_near(language, known))}")
        from phonemizer.backend import EspeakBackend

        logger = logging.getLogger(__name__ + ".espeak")
        logger.setLevel(logging.ERROR)  # every line whose word count changes would be a warning
        self.language = language
        self._backend = EspeakBackend(language, with_stress=True, language_switch="remove-flags", logger=logger)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Phonemes of each text, in one call of the back end; "" for a text without phonemes (empty, "?!", …).

        The result has one string per text whatever the texts hold (new lines are spaces).
        """
        # Punctuation is split off here and not by the package, whose own way drops lines without words and so loses
        # the correspondence of lines to texts.
        pieces = [_PUNCTUATION.split(_clean(text)) for text in texts]
        words = [piece for text in pieces for piece in text[::2] if piece.strip()]
        spoken = iter(self._backend.phonemize(words, strip=True) if words else [])
        return [_join(text, [next(spoken) if piece.strip() else "" for piece in text[::2]]) for text in pieces]


@functools.cache
def languages() -> dict[str, str]:
    """Language codes that espeak-ng knows, with their names.

    Raises:
      UserError: the extra `text` is not installed.
    """
    return {
        voice.language: voice.name for voice in _espeak()().available_voices() if not voice.identifier.startswith("mb/")
    }


def versions() -> dict[str, str]:
    """Versions of what decides the phonemes, for dataset.json."""
    import importlib.metadata

    espeak = ".".join(map(str, _espeak()().version))
    return {"phonemizer": importlib.metadata.version("phonemizer"), "espeak-ng": espeak}


@functools.cache
def _espeak() -> type:
    """The package's wrapper class, set to the library and data that `espeakng_loader` ships."""
    try:
        import espeakng_loader
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise UserError(
            f"the text front end is not installed (no module {error.name!r}): pip install 'valle-jax[text]'"
        ) from None
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    return EspeakWrapper


def _near(language: str, known: dict[str, str]) -> list[str]:
    """Codes of the same language family, of a language of that name, or else spelled alike."""
    word = re.split(r"[-_]", language.lower())[0]
    family = [code for code, name in known.items() if code.split("-")[0] == word or name.lower().startswith(word)]
    return sorted(family)[:12] or difflib.get_close_matches(language, sorted(known), n=5, cutoff=0.0)


def _clean(text: str) -> str:
    text = text.encode("utf-8", "ignore").decode()  # halves of surrogate pairs, which JSON and argv may hold
    text = " ".join(_CONTROL.sub(" ", text).split())
    return text.lower() if text.isupper() else text


def _join(pieces: list[str], spoken: list[str]) -> str:
    """Puts phonemes back between the punctuation (`pieces` alternates words and punctuation); "" without phonemes."""
    if not any(spoken):
        return ""
    merged = [part for words, marks in zip(spoken, [*pieces[1::2], ""], strict=True) for part in (words, marks)]
    return normalize(" ".join("".join(merged).split()))
