"""The work behind the page: a recording to a voice, and a text to takes."""

from __future__ import annotations

import dataclasses
import functools
import os

import numpy as np

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.hearing.recognition import get_recogniser
from valle_jax.inference.batching import most_probable, take_keys, within
from valle_jax.inference.engine import Engine, Task
from valle_jax.inference.long_text import fits
from valle_jax.inference.request import Audio, Options, Request
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import Voice
from valle_jax.inference.voice_command import SECONDS

_recogniser = functools.cache(get_recogniser)  # loading one takes a second, or more
RECORDING = "the recording"  # what errors call it: its path is of no use to who uploaded it


@dataclasses.dataclass(frozen=True)
class Takes:
    """What came of a text.

    Attributes:
      audios: the takes, in the order of their keys.
      best: which of them to keep: the most probable (`most_probable`) of those with the fewest problems.
    """

    audios: list[Audio]
    best: int


def read_recording(tts: Synthesizer, path: str | os.PathLike[str]) -> np.ndarray:
    """A recording of up to 20 s, float32 [samples] at the codec's rate; UserError where it is longer or no audio."""
    rate = tts.codec.info.sample_rate
    samples = read_audio(path, rate, end_seconds=SECONDS[1] + 1, name=RECORDING)
    if len(samples) > SECONDS[1] * rate:
        raise UserError(f"{RECORDING} has more than {SECONDS[1]:.0f} s; a voice prompt is best of about 3 s")
    return samples


def heard(tts: Synthesizer, samples: np.ndarray, recogniser: str) -> str:
    """What a recogniser (`get_recogniser`) hears in a recording; UserError where that is no word."""
    (text,) = _recogniser(recogniser).transcribe([samples], tts.codec.info.sample_rate)
    if not text:
        raise UserError(f"{recogniser} hears no words in {RECORDING}: if it has some, write down what it says")
    return text


def speak(tts: Synthesizer, text: str, voice: Voice, *, seed: int, options: Options) -> Takes:
    """Draws `options.best_of` takes of a text side by side, behind one prefix, and decodes all of them.

    Take n is take n of `Synthesizer.synthesize` with that seed: take 0 is what it says where it draws one.

    Raises:
      UserError: the text has no phonemes, or needs more than the model says at once; the voice is of another codec.
    """
    (job,) = tts.jobs([Request(text, voice)], options)
    if not fits(tts, text, voice):
        raise UserError(
            f"the text is too long to say at once behind a prompt of {voice.seconds:.1f} s: shorten one of them, or "
            "let `valle synthesize` say it in pieces"
        )
    most = tts.model.max_tokens
    job = within(job, most, tts.ar[0].config)
    engine = Engine(tts.ar, options.sampling, slots=options.best_of, max_tokens=most, max_frames=most)
    (keys,) = take_keys(seed, [0], options.takes(0))
    ((_, takes),) = engine.run([Task(text, job, keys)])
    jobs = [job] * len(takes)
    filled = tts.fill(jobs, [take.codes[:, 0] for take in takes], options)
    takes = [dataclasses.replace(take, codes=codes) for take, codes in zip(takes, filled, strict=True)]
    audios = tts.decode(jobs, takes, seed=seed)
    problems = [len(audio.info["problems"]) for audio in audios]
    best = most_probable(job, [take for take, n in zip(takes, problems, strict=True) if n == min(problems)])
    return Takes(audios, next(i for i, take in enumerate(takes) if take is best))
