"""The text side of an imported model: the token table that its checkpoint was trained with, as its user has it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re

import numpy as np

from valle_jax.errors import UserError

# Ids that the two projects give languages, by the first part of espeak-ng's code (models/vallex.py of VALL-E-X).
VALLEX_LANGUAGES = {"en": 0, "zh": 1, "cmn": 1, "ja": 2}
_SPACE = "_"  # in both projects


@dataclasses.dataclass(frozen=True)
class TokenTable:
    """Tokens of one or more characters and their ids. Symbols that the table lacks, such as stress marks, are left out.

    Attributes:
      version: names the table.
      tokens: ids by token; empty where the model was imported without its table.
      size: rows of the model's text embedding.
      begin, end: ids in front of and behind a whole text; None: nothing stands there.
      separator: between the phonemes of the prompt and those of the text.
      languages: ids of the model's language embedding by the first part of espeak-ng's code.
    """

    version: str
    tokens: dict[str, int]
    size: int
    begin: int | None = None
    end: int | None = None
    separator: str = ""
    languages: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        outside = [token for token, number in self.tokens.items() if not 0 <= number < self.size]
        if outside:
            raise UserError(f"text table {self.version}: token {outside[0]!r} is outside the model's {self.size} rows")

    @classmethod
    def of_vallex(cls, path: str | os.PathLike, size: int) -> TokenTable:
        """From VALL-E-X's `bpe_69.json`, a file of the `tokenizers` package."""
        try:
            with open(path, encoding="utf-8") as file:
                vocabulary = json.load(file)["model"]["vocab"]
            tokens = {token: int(number) for token, number in vocabulary.items() if not token.startswith("[")}
        except OSError as error:
            raise UserError(f"cannot read text table {os.fspath(path)}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{os.fspath(path)} is not a table of VALL-E-X (bpe_69.json): no model.vocab") from None
        return cls(os.path.basename(path), tokens, size, languages=VALLEX_LANGUAGES)

    @classmethod
    def of_lifeiteng(cls, path: str | os.PathLike, size: int) -> TokenTable:
        """From lifeiteng/vall-e's `unique_text_tokens.k2symbols`: a symbol and a number a line.

        The ids are not those numbers: the project sorts the symbols behind padding, begin and end (data/collation.py).
        """
        try:
            with open(path, encoding="utf-8") as file:
                symbols = {line.split()[0] for line in file if line.strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read text table {os.fspath(path)}: {error}") from None
        tokens = {symbol: 3 + i for i, symbol in enumerate(sorted(symbols | {"<eps>"}))}
        return cls(os.path.basename(path), tokens, size, begin=1, end=2, separator=" ")

    def encode(self, phonemes: str, unknown: collections.Counter[str] | None = None) -> np.ndarray:
        """A phoneme string as int32 [S], the longest tokens first; `unknown` collects the symbols left out.

        Raises:
          UserError: the model was imported without its table.
        """
        if not self.tokens:
            raise UserError(
                "this model was imported without the text table that it was trained with; import it again with "
                "--text-table bpe_69.json (VALL-E-X) or unique_text_tokens.k2symbols (lifeiteng/vall-e)"
            )
        found = []
        for piece in self._pattern.findall(phonemes.replace(" ", _SPACE)):
            if piece in self.tokens:
                found.append(self.tokens[piece])
            elif unknown is not None:
                unknown[piece] += 1
        return np.array(found, np.int32)

    def compose(self, prompt: np.ndarray | None, text: np.ndarray) -> tuple[np.ndarray, int]:
        """The tokens of a prompt's transcript and a text, as the model wants them, and how many are the prompt's.

        Without a prompt: those of the text, and 0.
        """
        begin, end = ([] if special is None else [special] for special in (self.begin, self.end))
        if prompt is None:
            return np.array([*begin, *text, *end], np.int32), 0
        head = [*begin, *prompt, *(self.encode(self.separator) if self.separator else ())]
        return np.array([*head, *text, *end], np.int32), len(head)

    def language_id(self, language: str) -> int:
        """The row of the model's language embedding; UserError where the model does not have the language."""
        if not self.languages:
            return 0
        name = language.split("-")[0]
        if name not in self.languages:
            raise UserError(f"this model does not speak {language}; it speaks {', '.join(self.languages)}")
        return self.languages[name]

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict) -> TokenTable:
        """The inverse of `to_json`."""
        return cls(**value)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) + "|.", re.DOTALL)
