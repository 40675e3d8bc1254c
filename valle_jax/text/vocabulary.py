"""The symbol table between phoneme strings and ids; every dataset and every model carries the one it was made with.

A symbol is one Unicode code point of the phoneme string in NFD, so that a nasal vowel is its letter and a tilde,
however it was composed. Ids 0, 1 and 2 are padding, end of text and unknown; symbols follow in the order of the table.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from valle_jax.errors import UserError

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
SPECIALS = ("<pad>", "<eos>", "<unk>")

_UNKNOWN_LETTER = "\N{REPLACEMENT CHARACTER}"


def normalize(phonemes: str) -> str:
    """The form in which phoneme strings are compared and stored: NFD."""
    return unicodedata.normalize("NFD", phonemes)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """An ordered symbol table.

    Attributes:
      version: names the table; the shipped one is `ipa-N`, one built from a corpus `corpus-HASH`.
      symbols: distinct single code points in NFD; symbol i has id i + 3.

    Raises:
      UserError: a symbol is not a single code point in NFD, or stands there twice.
    """

    version: str
    symbols: tuple[str, ...]

    def __post_init__(self):
        wrong = [s for s in self.symbols if not isinstance(s, str) or len(s) != 1 or normalize(s) != s]
        twice = [s for s, count in collections.Counter(self.symbols).items() if count > 1]
        if wrong or twice:
            what = "not a single code point in NFD" if wrong else "listed twice"
            raise UserError(f"vocabulary {self.version}: symbol {(wrong or twice)[0]!r} is {what}")

    @classmethod
    @functools.cache
    def default(cls) -> Vocabulary:
        """The shipped table: the letters, marks and punctuation of IPA as espeak-ng writes it in all its languages.

        The table is append-only, so ids are stable across corpora, checkpoints and releases.
        """
        table = json.loads((importlib.resources.files(__package__) / "ipa_symbols.json").read_text("utf-8"))
        return cls(table["version"], tuple(symbol for group in table["groups"] for symbol in group["symbols"]))

    @classmethod
    def from_corpus(cls, phoneme_strings: Iterable[str]) -> Vocabulary:
        """The smallest table for these strings, in code point order; its version is a hash of its symbols."""
        symbols = sorted({symbol for phonemes in phoneme_strings for symbol in normalize(phonemes)})
        return cls("corpus-" + hashlib.sha256("".join(symbols).encode()).hexdigest()[:8], tuple(symbols))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Vocabulary:
        """Reads a file that holds `to_json()`; UserError where it cannot."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_json(json.load(file))
        except OSError as error:
            raise UserError(f"cannot read vocabulary {os.fspath(path)}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f'{os.fspath(path)} is not a vocabulary: expected JSON with "version" and "symbols"'
            ) from None

    @property
    def size(self) -> int:
        """Number of ids, the three special ones included."""
        return len(SPECIALS) + len(self.symbols)

    def encode(self, phonemes: str, unknown: collections.Counter[str] | None = None) -> np.ndarray:
        """A phoneme string as int32 [S] without padding or end; `unknown` collects the symbols mapped to UNK_ID."""
        phonemes = normalize(phonemes)
        if unknown is not None:
            unknown.update(symbol for symbol in phonemes if symbol not in self._id_of)
        return np.array([self._id_of.get(symbol, UNK_ID) for symbol in phonemes], np.int32)

    def compose(self, prompt: np.ndarray | None, text: np.ndarray) -> tuple[np.ndarray, int]:
        """The tokens of a prompt's transcript, a space, a text and the end of text, and how many are the prompt's.

        Without a prompt: those of the text and its end, and 0.
        """
        head = np.empty(0, np.int32) if prompt is None else np.concatenate([prompt, self.encode(" ")])
        return np.concatenate([head, text, [EOS_ID]]).astype(np.int32), len(head)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The phoneme string (NFD) of ids [S]; padding and end are left out, unknown becomes U+FFFD.

        Raises:
          UserError: an id outside [0, size).
        """
        letters = ("", "", _UNKNOWN_LETTER, *self.symbols)
        outside = [int(i) for i in ids if not 0 <= i < self.size]
        if outside:
            raise UserError(f"phoneme id {outside[0]} is outside vocabulary {self.version} of {self.size} ids")
        return "".join(letters[i] for i in ids)

    def is_extension_of(self, other: Vocabulary) -> bool:
        """Whether every id of `other` means the same here (a warm start then keeps its embedding rows)."""
        return self.symbols[: len(other.symbols)] == other.symbols

    def check_same(self, other: Vocabulary, mine: str, others: str) -> None:
        """Raises UserError naming both artefacts unless every id means the same in both tables."""
        if self.symbols != other.symbols:
            raise UserError(
                f"{mine} was made with vocabulary {self.version} ({len(self.symbols)} symbols) but {others} with "
                f"{other.version} ({len(other.symbols)} symbols); prepare the dataset with the vocabulary of the other"
            )

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return {"version": self.version, "symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, value: dict) -> Vocabulary:
        """The inverse of `to_json`."""
        return cls(value["version"], tuple(value["symbols"]))

    @functools.cached_property
    def _id_of(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols, start=len(SPECIALS))}
