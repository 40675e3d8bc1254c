"""When each word and phone of a known text is said: forced alignment by pocketsphinx, and how well the text fits."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError
from valle_jax.hearing.pronunciation import PHONES, Pronunciations
from valle_jax.hearing.recognition import normalise

_RATE = 16_000
_FRAMES_PER_SECOND = 100
_SCORE_SHIFT = 1024  # pocketsphinx divides logarithms of path scores by this (SENSCR_SHIFT)
_PAUSES = ("SIL", "+NSN+", "+SPN+")  # silence, noise, noise of a speaker
# What a phone is called in grammars, where no word of the dictionary is; a word's last phone has a name of its own, so
# that words are told apart whichever pronunciation was said.
_PHONE, _FINAL = "/", "."
_ALIGN_BEAM, _LOOP_BEAM = 1e-60, 1e-10  # the loop explains any sound, so it needs no more


@dataclasses.dataclass(frozen=True)
class Segment:
    """A word or phone and when it is said.

    Attributes:
      label: a word as `normalise` makes it, or an ARPAbet phone without stress.
      start: seconds from the beginning.
      end: seconds.
    """

    label: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Alignment:
    """A text on the time line of its recording; between words there may be silence.

    Attributes:
      words: all words of the text.
      phones: of all words, in the pronunciations that fit best.
      score: nats per frame of speech (10 ms), relative to how well phones in any order explain the same audio: 0 is
        perfect, the lower the worse. What speaker and channel do to both cancels out.
    """

    words: tuple[Segment, ...]
    phones: tuple[Segment, ...]
    score: float


class Aligner:
    """pocketsphinx with its bundled English model, in one pass over a grammar that says the text phone by phone.

    An instance serves one thread.
    """

    def __init__(self) -> None:
        """Loads the model; UserError where pocketsphinx is not installed."""
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise UserError("pocketsphinx is not installed: pip install 'valle-jax[eval]'") from None
        # All senones: frames' scores are relative to the best senone computed, and two searches have to agree on it.
        # Weights of 1 leave nothing but acoustic scores. The grammar has its own silences.
        self._decoder = Decoder(
            samprate=_RATE, lm=None, loglevel="FATAL", compallsen=True, bestpath=False, fsgusefiller=False,
            lw=1.0, wip=1.0, pip=1.0,
        )  # fmt: skip
        self._pronunciations = Pronunciations(self._decoder.lookup_word)
        for phone in PHONES:
            self._decoder.add_word(_PHONE + phone, phone, update=False)
            self._decoder.add_word(_PHONE + phone + _FINAL, phone, update=False)
        for pause in _PAUSES:
            self._decoder.add_word(_PHONE + pause, pause, update=pause == _PAUSES[-1])
        loop = [(0, 0, 1.0, _PHONE + phone) for phone in (*PHONES, *_PAUSES)]
        self._add_grammar("loop", 0, loop, _LOOP_BEAM)

    def align(self, samples: np.ndarray, sample_rate: int, text: str) -> Alignment | None:
        """The alignment of an English text; None where the audio cannot be that text, or one of them is empty.

        A text of about the right length mostly gets an alignment, wrong as it may be: its score tells.

        Args:
          samples: float32 [samples].
          sample_rate: in Hz.
          text: every word of it is said, in the dictionary's pronunciations or else in espeak-ng's.

        Raises:
          UserError: a word is not in the dictionary, or there are digits, and the package for them is not installed.
        """
        words = normalise(text)
        pcm = np.clip(resample(samples, sample_rate, _RATE) * 32768, -32768, 32767).astype(np.int16)
        variants = [self._pronunciations(word) for word in words]
        if not words or not all(variants) or not pcm.any():
            return None
        self._add_grammar("text", *_grammar(variants), _ALIGN_BEAM)
        found = self._search("text", pcm)
        best = self._search("loop", pcm)
        if found is None or best is None:
            return None
        phones = [(label, start, end) for label, start, end in found[1] if label.removeprefix(_PHONE) not in _PAUSES]
        ends = [i for i, (label, _, _) in enumerate(phones) if label.endswith(_FINAL)]
        frames = sum(end - start for _, start, end in phones)
        starts = [0, *(i + 1 for i in ends[:-1])]
        return Alignment(
            tuple(_segment(w, phones[i][1], phones[j][2]) for w, i, j in zip(words, starts, ends, strict=True)),
            tuple(
                _segment(label.removeprefix(_PHONE).removesuffix(_FINAL), start, end) for label, start, end in phones
            ),
            (found[0] - best[0]) / frames,
        )

    def _add_grammar(self, name: str, final: int, arcs: list[tuple[int, int, float, str]], beam: float) -> None:
        for key in ("beam", "pbeam", "wbeam"):
            self._decoder.config[key] = beam  # read when a search is made
        self._decoder.add_fsg(name, self._decoder.create_fsg(name, 0, final, arcs))

    def _search(self, name: str, pcm: np.ndarray) -> tuple[float, list[tuple[str, int, int]]] | None:
        """Nats of the best path through a grammar, and its labels from frame to frame; None where there is none."""
        self._decoder.activate_search(name)
        self._decoder.reinit_feat()  # forgets the channel mean of the recording before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        if hypothesis is None:
            return None
        segments = [(s.word, s.start_frame, s.end_frame + 1) for s in self._decoder.seg() if s.word != "(NULL)"]
        return _SCORE_SHIFT * math.log(hypothesis.score), segments


def align(samples: np.ndarray, sample_rate: int, text: str) -> Alignment | None:
    """See `Aligner.align`; the process keeps one."""
    return _aligner().align(samples, sample_rate, text)


@functools.cache
def _aligner() -> Aligner:
    return Aligner()


def _grammar(variants: list[tuple[tuple[str, ...], ...]]) -> tuple[int, list[tuple[int, int, float, str]]]:
    """The final state, and arcs (from, to, probability, label), of words with pronunciations side by side."""
    arcs = _pauses(0)
    begin = last = 0
    for pronunciations in variants:
        last += 1
        end = last
        for phones in pronunciations:
            state = begin
            for phone in phones[:-1]:
                last += 1
                arcs.append((state, last, 1.0, _PHONE + phone))
                state = last
            arcs.append((state, end, 1.0, _PHONE + phones[-1] + _FINAL))
        arcs += _pauses(end)
        begin = end
    return begin, arcs


def _pauses(state: int) -> list[tuple[int, int, float, str]]:
    return [(state, state, 1.0, _PHONE + pause) for pause in _PAUSES]


def _segment(label: str, start: int, end: int) -> Segment:
    return Segment(label, start / _FRAMES_PER_SECOND, end / _FRAMES_PER_SECOND)
