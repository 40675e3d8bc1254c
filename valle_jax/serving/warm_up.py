"""Compiles what requests will need before the first of them comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from valle_jax.codec.base import StreamingCodec
from valle_jax.data.batch import mark_tokens
from valle_jax.inference.batching import Job, Take, bucket, take_keys, target_frames
from valle_jax.inference.engine import Engine, Task
from valle_jax.inference.request import Options
from valle_jax.inference.streaming import Pace, StreamDecoder
from valle_jax.inference.synthesizer import Synthesizer

_LEAST_TEXT = 2  # tokens
_FRAMES = 2  # that are drawn


def warm_up(
    tts: Synthesizer, engine: Engine, options: Options, sizes: Sequence[int], prompt_frames: int, pace: Pace
) -> Iterator[None]:
    """Draws and finishes an utterance of every length bucket that the model has, and streams one; yields after each.

    What a codec compiles for other lengths than these is compiled when they come.

    Args:
      tts: the model.
      engine: that will draw.
      options: as of the requests.
      sizes: how many utterances are finished side by side.
      prompt_frames: of the shortest prompt: no utterance is shorter.
      pace: of streams.
    """
    prompt = np.zeros((prompt_frames, tts.codec.info.codebooks), np.int32)

    def job(text_tokens: int) -> Job:
        return Job(np.ones(text_tokens, np.int32), prompt, _FRAMES, _FRAMES)

    for _ in engine.run(_tasks(tts, options, job, prompt_frames)):
        yield
    mark = mark_tokens(tts.nar[0].config)
    for length in _buckets(prompt_frames + _LEAST_TEXT, tts.model.max_tokens + mark):
        room = length - prompt_frames - mark
        half = target_frames(length, 1)
        for frames in {min(half, room - _LEAST_TEXT), half + 1}:
            if 0 < frames <= room - _LEAST_TEXT:
                take = Take(np.zeros((frames, 1), np.int32), True, 0.0)
                for size in sizes:
                    takes = [[take] * options.best_of] * size
                    tts.finish([job(room - frames)] * size, takes, options=options)
                    yield
    if isinstance(tts.codec, StreamingCodec):
        decoder, room = StreamDecoder(tts, job(_LEAST_TEXT), options, pace), tts.model.max_tokens - prompt_frames
        while decoder.wanted_frames <= min(room - _LEAST_TEXT - mark, 2 * pace.chunk_frames):
            decoder.next(np.zeros(decoder.wanted_frames, np.int32), last=False)
            yield


def _tasks(tts: Synthesizer, options: Options, job: Callable[[int], Job], prompt_frames: int) -> Iterator[Task]:
    config = tts.ar[0].config
    others = prompt_frames // config.codes_per_step + mark_tokens(config)
    most = bucket(tts.model.max_tokens) - _FRAMES
    for length in _buckets(others + _LEAST_TEXT, most):
        keys = take_keys(0, [0], options.takes(0))[0]
        yield Task(str(length), job(min(length, most) - others), keys)


def _buckets(least: int, most: int) -> Iterator[int]:
    """The length buckets from that of the least to that of the most."""
    length = bucket(least)
    while length <= bucket(most):
        yield length
        length = bucket(length + 1)
