"""At which frame each symbol of a phoneme string starts, from the times of the text's words."""

from __future__ import annotations

import difflib
import functools
import itertools
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from valle_jax.hearing.recognition import TimedWord

_STRESS = "ˈˌ"  # before what they belong to; other marks stand behind it


def phoneme_frames(
    phonemes: str, words: Sequence[TimedWord], alone: Mapping[str, str], frames_per_second: float, n_frames: int
) -> np.ndarray | None:
    """Start frames int32 [S], ascending, of the symbols of a phoneme string; None where no word is found in it.

    espeak-ng joins words ("of the" is one), and says them otherwise than alone, so the phonemes of the words alone are
    laid beside the string to find where each begins. Inside a word its symbols follow one another evenly; spaces and
    punctuation start where the word before them ends.

    Args:
      phonemes: of the text, one symbol per code point.
      words: of the text, with times in seconds from the first frame.
      alone: phonemes of each of these words.
      frames_per_second: of the codec.
      n_frames: of the utterance.
    """
    letters = [place for place, symbol in enumerate(phonemes) if _is_letter(symbol)]
    pieces = ["".join(filter(_is_letter, alone[word])) for word, _, _ in words]
    bounds = [*itertools.accumulate(map(len, pieces), initial=0)]
    place = _places("".join(pieces), "".join(phonemes[i] for i in letters))
    starts = [_start(phonemes, letters, int(place[bound])) for bound in bounds]
    starts[-1:] = [len(phonemes)]
    seconds = np.zeros(len(phonemes))
    found = False
    for (_, start, end), first, after in zip(words, starts[:-1], starts[1:], strict=True):
        inside = [i for i in letters if first <= i < after]
        if not inside:
            continue
        found = True
        stop = inside[-1] + 1
        while stop < after and unicodedata.category(phonemes[stop]) in ("Lm", "Mn") and phonemes[stop] not in _STRESS:
            stop += 1
        seconds[first:stop] = np.linspace(start, end, stop - first, endpoint=False)
        seconds[stop:after] = end
    frames = np.maximum.accumulate(np.floor(seconds * frames_per_second + 1e-6).astype(np.int32))
    return np.clip(frames, 0, n_frames - 1) if found else None


@functools.cache
def _is_letter(symbol: str) -> bool:
    """Whether a symbol is a sound, and no mark, space or punctuation."""
    return unicodedata.category(symbol) in ("Ll", "Lo", "Lu")


def _places(written: str, spoken: str) -> np.ndarray:
    """Where each letter of one string, and its end, is in another one that is much the same; int [letters + 1]."""
    place = np.full(len(written) + 1, len(spoken))
    for _, i1, i2, j1, j2 in difflib.SequenceMatcher(None, written, spoken, autojunk=False).get_opcodes():
        for i in range(i1, i2):
            place[i] = j1 + (i - i1) * (j2 - j1) // (i2 - i1)
    return place


def _start(phonemes: str, letters: Sequence[int], number: int) -> int:
    """The symbol at which a letter begins: its stress mark, if it has one."""
    start = letters[number] if number < len(letters) else len(phonemes)
    while start and phonemes[start - 1] in _STRESS:
        start -= 1
    return start
