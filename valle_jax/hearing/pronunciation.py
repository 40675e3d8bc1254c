"""English words as ARPAbet phones: pocketsphinx's dictionary (CMUdict), and espeak-ng for what it lacks."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable

Phones = tuple[str, ...]  # ARPAbet without stress

# The phones of CMUdict and the IPA that espeak-ng writes for them in en-us.
_IPA = {
    "AA": "ɑː ɑ ɒ", "AE": "æ a", "AH": "ʌ ə ɐ", "AO": "ɔː ɔ", "AW": "aʊ", "AY": "aɪ", "B": "b", "CH": "tʃ", "D": "d",
    "DH": "ð", "EH": "ɛ e", "ER": "ɜː ɚ ɝ", "EY": "eɪ", "F": "f", "G": "ɡ g", "HH": "h", "IH": "ɪ ᵻ", "IY": "iː i",
    "JH": "dʒ", "K": "k x", "L": "l ɬ", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ oː o", "OY": "ɔɪ", "P": "p",
    "R": "ɹ r", "S": "s", "SH": "ʃ", "T": "t ɾ ʔ", "TH": "θ", "UH": "ʊ", "UW": "uː u", "V": "v", "W": "w",
    "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
_CLUSTERS = {"əl": ("AH", "L"), "aɪɚ": ("AY", "ER"), "n̩": ("AH", "N")}
PHONES = tuple(_IPA)
_PHONES_OF = {ipa: (phone,) for phone, symbols in _IPA.items() for ipa in symbols.split()} | _CLUSTERS
_SYMBOL = re.compile("|".join(sorted(_PHONES_OF, key=len, reverse=True)))


class Pronunciations:
    """The ways to say a word."""

    def __init__(self, lookup: Callable[[str], str | None]) -> None:
        """`lookup` is `Decoder.lookup_word`: phones with spaces between, of `read`, `read(2)`, …"""
        self._lookup = lookup

    def __call__(self, word: str) -> tuple[Phones, ...]:
        """All of the dictionary's, the commonest first, or else espeak-ng's; none where there is nothing to say.

        Raises:
          UserError: the dictionary lacks the word, and the extra `text` is not installed.
        """
        names = itertools.chain([word], (f"{word}({n})" for n in itertools.count(2)))
        listed = itertools.takewhile(bool, map(self._lookup, names))
        found = tuple(tuple(phones.split()) for phones in listed if phones)
        return found or tuple(filter(None, [from_ipa(_phonemizer()([word])[0])]))


def from_ipa(ipa: str) -> Phones:
    """ARPAbet of espeak-ng's IPA; stress, length and sounds that English lacks are left out."""
    return tuple(itertools.chain.from_iterable(_PHONES_OF[symbol] for symbol in _SYMBOL.findall(ipa)))


@functools.cache
def _phonemizer():
    from valle_jax.text.phonemizer import Phonemizer

    return Phonemizer("en-us")
