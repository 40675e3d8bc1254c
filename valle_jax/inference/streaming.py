"""Speech while it is being drawn.

Codebook 1 is drawn a chunk at a time, with the codes that `generate_ar` draws at once. As soon as a chunk and some
frames behind it, the lookahead, are there, the NAR fills in their other codebooks. The chunk's are then frozen: the NAR
sees them as part of its prompt when it fills in what follows, and the codec goes on from what it has decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from valle_jax.codec.base import StreamingCodec
from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, ar_batch, bucket, take_keys
from valle_jax.inference.decoding import Slots, bind, draw, prefill
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.takes import describe
from valle_jax.model import Decoder, Params

if TYPE_CHECKING:
    from valle_jax.inference.synthesizer import Options, Request, Synthesizer

CONTEXT_FRAMES = 25  # of the prompt are decoded before new speech and cut off, so that the joint is not audible


@dataclasses.dataclass(frozen=True)
class Pace:
    """In what pieces speech is given out.

    Attributes:
      first_frames: of the first chunk: the fewer, the sooner it is there.
      chunk_frames: of the longest; each chunk has twice the frames of the one before, up to this: each costs a pass
        over all that was said.
      lookahead_frames: that the NAR sees behind a chunk before it decides; they delay every chunk. With as many as the
        utterance has there is one chunk, as it would be without streaming.
    """

    first_frames: int = 24
    chunk_frames: int = 96
    lookahead_frames: int = 12

    def __post_init__(self):
        if not 0 < self.first_frames <= self.chunk_frames:
            raise UserError(f"first_frames {self.first_frames} must be from 1 to chunk_frames {self.chunk_frames}")
        if self.lookahead_frames < 0:
            raise UserError(f"lookahead_frames {self.lookahead_frames} must not be negative")


@dataclasses.dataclass(frozen=True, eq=False)
class AudioChunk:
    """A piece of speech, to be played right behind the one before.

    Attributes:
      samples: float32 [samples].
      sample_rate: samples per second.
      codes: int32 [frames, codebooks].
      info: of the whole utterance, with its last chunk, and None with the others: `Audio.info` and
        `first_audio_seconds`, from the beginning to when the first chunk was there.
    """

    samples: np.ndarray
    sample_rate: int
    codes: np.ndarray
    info: dict[str, Any] | None = None


class StreamDecoder:
    """Makes audio of the codebook 1 of one utterance while it grows, whoever draws it."""

    def __init__(self, tts: Synthesizer, job: Job, options: Options, pace: Pace = Pace()):
        """UserError where the codec cannot decode chunk by chunk."""
        if not isinstance(tts.codec, StreamingCodec):
            raise UserError(f"codec {tts.codec.info.name} decodes whole utterances only: it cannot stream")
        self._tts, self._job, self._options, self._pace = tts, job, options, pace
        self._stream = tts.codec.stream()
        self._frozen = np.zeros((0, tts.codec.info.codebooks), np.int32)
        self._size = pace.first_frames
        self._samples: list[np.ndarray] = []

    @property
    def wanted_frames(self) -> int:
        """Frames, counted from the first, that the next chunk waits for."""
        return len(self._frozen) + self._size + self._pace.lookahead_frames

    def next(self, first_codebook: np.ndarray, *, last: bool) -> AudioChunk:
        """The next chunk, which depends on the wanted frames only.

        Args:
          first_codebook: int [T], codebook 1 of all frames so far, as many as are wanted or more.
          last: there are no more frames: the chunk has all that are left, if any.
        """
        begin = len(self._frozen)
        end = len(first_codebook) if last else begin + self._size
        info = self._tts.codec.info
        if 0 < begin == end:  # the end of speech was all that was waited for
            return AudioChunk(np.zeros(0, np.float32), info.sample_rate, self._frozen[begin:])
        drawn = first_codebook if last else first_codebook[: self.wanted_frames]
        (filled,) = self._tts.fill([self._job], [drawn], self._options, frozen=[self._frozen])
        self._frozen = filled[:end]
        self._size = min(2 * self._size, self._pace.chunk_frames)
        context = self._job.prompt_codes[-CONTEXT_FRAMES:] if begin == 0 else filled[:0]
        chunk = np.concatenate([context, filled[begin:end]])
        (samples,) = self._stream(chunk[None], filled[None, end:], last=last)
        cut = round(len(context) * info.sample_rate / info.frames_per_second)
        self._samples.append(samples[cut:])
        return AudioChunk(samples[cut:], info.sample_rate, filled[begin:end])

    def describe(self, take: Take) -> dict[str, Any]:
        """The info of the utterance, whose last chunk was made."""
        return describe(self._job, take, np.concatenate(self._samples), self._tts.codec.info)


def stream(
    tts: Synthesizer, request: Request, *, seed: int = 0, options: Options, pace: Pace = Pace()
) -> Iterator[AudioChunk]:
    """See `Synthesizer.stream`. What is wrong with the request is raised here, not when a chunk is asked for."""
    start = time.perf_counter()
    if options.best_of != 1:
        raise UserError("what has been heard cannot be taken back: a stream is one take, so best_of must be 1")
    (job,) = tts.jobs([request], options)
    decoder = StreamDecoder(tts, job, options, pace)
    return _chunks(tts, job, decoder, seed, options, start)


def _chunks(
    tts: Synthesizer, job: Job, decoder: StreamDecoder, seed: int, options: Options, start: float
) -> Iterator[AudioChunk]:
    keys = take_keys(seed, [0], options.takes(0))[0]
    limits = np.array([[job.min_frames], [job.max_frames]], np.int32)
    batch, most = ar_batch([job], tts.ar[0]), bucket(job.max_frames)
    sampling = options.sampling
    slots = _begin(*tts.ar, batch, keys, *limits, sampling=sampling, max_frames=most)
    slots = _go_on(*tts.ar, slots, decoder.wanted_frames, sampling=sampling)
    first_audio_seconds = 0.0
    while True:
        live, codes, length, finished = jax.device_get((slots.live, slots.codes, slots.length, slots.finished))
        chunk = decoder.next(codes[0, : length[0]], last=not live[0])
        first_audio_seconds = first_audio_seconds or time.perf_counter() - start
        if not live[0]:
            break
        # The device goes on while the caller has the chunk.
        slots = _go_on(*tts.ar, slots, decoder.wanted_frames, sampling=sampling)
        yield chunk
    take = Take(codes[0, : length[0], None], bool(finished[0]), float(slots.mean_log_probability[0]))
    facts = {"tries": 1, "seed": seed, "first_audio_seconds": first_audio_seconds}
    yield dataclasses.replace(chunk, info=decoder.describe(take) | facts)


@functools.partial(jax.jit, static_argnames=("decoder", "sampling", "max_frames"))
def _begin(
    decoder: Decoder, params: Params, batch, keys, min_frames, max_frames_B, *, sampling: Sampling, max_frames: int
) -> Slots:
    """A slot with room for what `generate_ar` would draw in it."""
    return prefill(
        bind(decoder, params),
        batch,
        keys,
        min_frames,
        max_frames_B,
        sampling=sampling,
        max_frames=max_frames,
    )


@functools.partial(jax.jit, static_argnames=("decoder", "sampling"), donate_argnames=("slots",))
def _go_on(decoder: Decoder, params: Params, slots: Slots, frames: jax.Array | int, *, sampling: Sampling) -> Slots:
    """Draws in the one slot until it has so many frames, or has ended."""
    model = bind(decoder, params)
    layers = model.unstack()
    return jax.lax.while_loop(
        lambda slots: slots.live[0] & (slots.length[0] < frames),
        lambda slots: draw(model, layers, sampling, slots),
        slots,
    )
