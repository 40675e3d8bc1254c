"""Where words end in a recording, so that a prompt cut from its beginning has an exact transcript."""

from __future__ import annotations

import importlib.metadata
import re

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError

_RATE = 16_000
_FRAMES_PER_SECOND = 100
TOLERANCE_SECONDS = 0.5  # how far the word boundary may lie from where the cut should be


class WordCutter:
    """Forced alignment by pocketsphinx with its bundled English model."""

    def __init__(self) -> None:
        """UserError where pocketsphinx is not installed."""
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise UserError(
                "cutting prompts at words needs pocketsphinx: pip install 'valle-jax[eval]', or take whole recordings "
                "with --whole-prompts"
            ) from None
        self._decoder = Decoder(samprate=_RATE, lm=None, loglevel="FATAL")
        self.name = f"pocketsphinx {importlib.metadata.version('pocketsphinx')}"

    def cut(self, samples: np.ndarray, sample_rate: int, text: str, seconds: float) -> tuple[float, str] | None:
        """Where to cut, in seconds, and the words before that, whichever word boundary lies nearest to `seconds`.

        None where a word is not in the dictionary, the text does not fit the audio, or no boundary is near enough.
        """
        words = re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()
        ends = self._word_ends(resample(samples, sample_rate, _RATE), words)
        if ends is None:
            return None
        distances = [abs(end - seconds) for end in ends]
        best = int(np.argmin(distances))
        if distances[best] > TOLERANCE_SECONDS:
            return None
        return round(ends[best], 2), " ".join(words[: best + 1])

    def _word_ends(self, samples: np.ndarray, words: list[str]) -> list[float] | None:
        """When each word ends, in seconds."""
        if not words:
            return None
        try:
            self._decoder.set_align_text(" ".join(words))
        except RuntimeError:  # a word that the dictionary lacks
            return None
        self._decoder.reinit_feat()  # forgets the channel mean of the recording before
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        if self._decoder.hyp() is None:
            return None
        # `<sil>`, `<s>` and noises are no words; `our(2)` is a variant of one.
        found = [s for s in self._decoder.seg() if s.word[0] not in "<[+"]
        if [re.sub(r"\(\d+\)$", "", s.word) for s in found] != words:
            return None
        return [(s.end_frame + 1) / _FRAMES_PER_SECOND for s in found]
