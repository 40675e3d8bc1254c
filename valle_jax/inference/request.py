"""What is asked of a synthesizer, how it is to be done, and what comes back."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal, get_args

import numpy as np

from valle_jax.audio import write_audio
from valle_jax.errors import UserError
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.voice import Voice

RankBy = Literal["log_probability", "wer", "similarity", "wer+similarity"]


@dataclasses.dataclass(frozen=True)
class Audio:
    """Synthesised speech.

    Attributes:
      samples: float32 [samples] in [-1, 1].
      sample_rate: samples per second.
      info: `frames`, `seconds`, `finished` (ended by end of speech), `log_probability` (mean per code), `problems`
        (of `takes.problems`, empty for a good take), `unknown_symbols` (phonemes that the model has no token for: it
        did not see them), `tries` (that were drawn), `seed`; where takes were heard, `wer` and `similarity`.
      codes: int32 [frames, codebooks].
    """

    samples: np.ndarray
    sample_rate: int
    info: dict[str, Any]
    codes: np.ndarray

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the audio, in the format that the suffix names."""
        write_audio(path, self.samples, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to say, and in whose voice.

    Attributes:
      text: what to say.
      prompt: about 3 seconds of the voice: an audio file, float32 [samples] at the codec's sample rate, or a stored
        voice, which knows what it says.
      prompt_text: what the prompt says; None: `text` is the whole of an utterance that the prompt begins, and the
        model goes on from there (VALL-E-continual: P1, section 5.1).
    """

    text: str
    prompt: str | os.PathLike[str] | np.ndarray | Voice
    prompt_text: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """How to say it.

    Attributes:
      sampling: the decoding rules.
      min_rate_ratio: shortest speech allowed, as a share of what the prompt's speaking rate predicts for the text
        (without its transcript: `SYMBOLS_PER_SECOND`).
      max_rate_ratio: longest speech allowed, likewise; a take that reaches it has no end of speech.
      tries: how often a text is drawn, with other keys, until its take is no bad one; the last one says what it has.
      best_of: takes of every try, of which one is kept.
      rank_by: by what it is chosen: "log_probability", among the takes that ended by themselves the decoder's own mean,
        less what the length is off the one that the prompt's rate predicts; the lowest word error rate; the highest
        similarity to the prompt's voice; or as VALL-E 2 does: the lowest word error rate among those of a similarity
        above 0.3, else the highest similarity.
      recogniser: that hears the words: pocketsphinx, hubert-large, whisper, parakeet, or a model of transformers.
      speaker_model: that compares voices: resemblyzer, wavlm-tdnn, or a model of transformers.
      nar_temperature: 0 takes the NAR's most probable codes; above, those nearest to the expected vectors: see
        `Filling`.
      nar_guidance: above 1, the NAR keeps closer to the voice of the prompt, for twice the work: see `Filling`.
      batch_size: takes that are generated side by side.
    """

    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95)
    min_rate_ratio: float = 0.5
    max_rate_ratio: float = 2.5
    tries: int = 3
    best_of: int = 1
    rank_by: RankBy = "log_probability"
    recogniser: str = "pocketsphinx"
    speaker_model: str = "resemblyzer"
    nar_temperature: float = 0.0
    nar_guidance: float = 1.0
    batch_size: int = 16

    def __post_init__(self):
        for name in ("tries", "best_of", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        if self.rank_by not in get_args(RankBy):
            raise UserError(f"unknown rank_by {self.rank_by!r}; known: {', '.join(get_args(RankBy))}")
        if self.nar_temperature < 0:
            raise UserError(f"nar_temperature {self.nar_temperature} must not be negative")
        if not 0 <= self.min_rate_ratio <= self.max_rate_ratio:
            raise UserError(f"rate ratios {self.min_rate_ratio} and {self.max_rate_ratio} are not from low to high")

    def takes(self, number: int) -> range:
        """Which of an utterance's takes are those of a try; both count from 0."""
        return range(number * self.best_of, (number + 1) * self.best_of)
