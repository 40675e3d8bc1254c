"""What is on its way: requests, the utterances that they are said in, and those that are given out while drawn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from valle_jax.inference.batching import Job, Take
from valle_jax.inference.long_text import Piece, PieceJoiner, Reading
from valle_jax.inference.request import Audio
from valle_jax.inference.streaming import AudioChunk, StreamDecoder

READING = Reading()  # how long texts are read


@dataclasses.dataclass(eq=False)
class Ticket:
    """A request on its way.

    Attributes:
      send: gets what comes of it, from a thread of the service: the audio, the chunks of a stream, the last of which
        has the info, or an error.
      seed: of its random draws.
      pieces: that its text is said in; none: the text fits the model.
      said: by number, pieces that are done while one before them is not.
      audios: pieces that are done, from the first on.
      joiner: of the pieces, where they are given out one by one.
      later: the pieces that are drawn once the first audio is out.
      started: when it came, by `time.perf_counter`.
      cancelled: whether nobody waits for it any more.
    """

    send: Callable[[Audio | AudioChunk | Exception], object]
    seed: int
    pieces: list[Piece]
    said: dict[int, tuple[Utterance, Audio]] = dataclasses.field(default_factory=dict)
    audios: list[Audio] = dataclasses.field(default_factory=list)
    joiner: PieceJoiner | None = None
    later: list[Utterance] = dataclasses.field(default_factory=list)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    cancelled: bool = False

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.perf_counter() - self.started


@dataclasses.dataclass(eq=False)
class Stream:
    """An utterance that is given out while it is drawn."""

    decoder: StreamDecoder
    codes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))  # so far
    take: Take | None = None  # once it is drawn
    first_audio_seconds: float = 0.0  # 0: not yet

    @property
    def due(self) -> bool:
        """Whether the next chunk can be made."""
        return self.take is not None or len(self.codes) >= self.decoder.wanted_frames

    @property
    def last(self) -> bool:
        """Whether that is the last: where the drawing had ended when the chunk's frames were there."""
        wanted, there = self.decoder.wanted_frames, len(self.codes)
        return self.take is not None and (there < wanted or (there == wanted and not self.take.finished))


@dataclasses.dataclass(eq=False)
class Utterance:
    """What is drawn at once: the text of a request, or a piece of it."""

    ticket: Ticket
    job: Job
    number: int = 0  # of the piece
    tries: int = 0  # that were drawn
    repeated: int = 0  # how often it was drawn anew because it began as the piece before ended
    stream: Stream | None = None
