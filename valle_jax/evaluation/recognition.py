"""Words that an offline recogniser hears."""

from __future__ import annotations

import re

import numpy as np

from valle_jax.audio import resample

_RATE = 16_000


def normalise(text: str) -> list[str]:
    """Lower-case words without punctuation; pocketsphinx marks variants as in `the(2)`."""
    return re.sub(r"[^a-z' ]", " ", re.sub(r"\(\d\)", "", text.lower().replace("-", " "))).split()


class WordRecogniser:
    """pocketsphinx with its bundled English acoustic and language model."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=_RATE, loglevel="FATAL")

    def __call__(self, samples: np.ndarray, sample_rate: int) -> list[str]:
        """The words of an utterance, float32 samples [n]."""
        pcm = np.clip(resample(samples, sample_rate, _RATE) * 32768, -32768, 32767).astype(np.int16)
        self._decoder.reinit_feat()  # forgets the channel mean of the utterance before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return normalise(hypothesis.hypstr if hypothesis else "")
