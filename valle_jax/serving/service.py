"""The engine behind a queue, without HTTP: requests come from any thread, and what they ask for is said side by side.

One thread draws: it takes what waits whenever the engine has a free slot. Another finishes: it fills in the other
codebooks, decodes, judges, and sends bad takes back to be drawn again. A long text is several utterances.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from valle_jax.data.batch import mark_tokens
from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, take_keys
from valle_jax.inference.engine import Engine, Occupancy, Task
from valle_jax.inference.joints import repeats
from valle_jax.inference.long_text import Piece, Reading, cut, fits, merge
from valle_jax.inference.request import Audio, Options, Request
from valle_jax.inference.streaming import AudioChunk, Pace, StreamDecoder
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.takes import describe
from valle_jax.inference.voice import Voice, list_voices
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.speech_request import MOST_SEED, SpeechRequest
from valle_jax.serving.warm_up import warm_up

_READING = Reading()
_log = logging.getLogger("valle.serve")


class FullError(Exception):
    """So many utterances wait that no more are taken.

    Attributes:
      seconds: when to try again.
    """

    def __init__(self, seconds: int):
        super().__init__(f"too many requests wait; try again in {seconds} s")
        self.seconds = seconds


class UnknownVoiceError(UserError):
    """There is no voice of the name that was asked for."""


class BrokenError(Exception):
    """The service has failed and says nothing more."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the service works.

    Attributes:
      options: how everything is said; its `batch_size` utterances at most are finished side by side.
      slots: utterances that are drawn side by side.
      steps: most codes that are drawn between two looks at the queue: the fewer, the sooner a request joins.
      max_waiting: utterances; while so many wait for a slot, requests are refused.
      pace: of streams.
      voices: folder of stored voices; None: the user's.
      warm_up: compile what requests will need before the first one.
    """

    options: Options = Options()
    slots: int = 8
    steps: int = 16
    max_waiting: int = 64
    pace: Pace = Pace()
    voices: str | None = None
    warm_up: bool = True

    def __post_init__(self):
        for name in ("slots", "steps", "max_waiting"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")


@dataclasses.dataclass(eq=False)
class Ticket:
    """A request on its way.

    Attributes:
      send: gets what comes of it, from a thread of the service: the audio, the chunks of a stream, the last of which
        has the info, or an error.
      seed: of its random draws.
      pieces: that its text is said in; none: the text fits the model.
      said: those that are done.
      started: when it came, by `time.perf_counter`.
      cancelled: whether nobody waits for it any more.
    """

    send: Callable[[Audio | AudioChunk | Exception], object]
    seed: int
    pieces: list[Piece]
    said: dict[int, tuple[_Utterance, Audio]] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    cancelled: bool = False

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.perf_counter() - self.started


@dataclasses.dataclass(eq=False)
class _Stream:
    """An utterance that is given out while it is drawn."""

    decoder: StreamDecoder
    codes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))  # so far
    take: Take | None = None  # once it is drawn
    parts: list[np.ndarray] = dataclasses.field(default_factory=list)
    first_audio_seconds: float = 0.0

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
class _Utterance:
    """What is drawn at once: the text of a request, or a piece of it."""

    ticket: Ticket
    job: Job
    number: int = 0  # of the piece
    tries: int = 0  # that were drawn
    repeated: int = 0  # how often it was drawn anew because it began as the piece before ended
    stream: _Stream | None = None


class Service:
    """Says what is asked for, from `start` to `stop`.

    Args:
      tts: the model.
      settings: see there.
      metrics: where it counts what it does.
      on_failure: is called, from a thread of the service, when that has failed for good.

    Attributes:
      ready: whether everything is compiled.
      broken: what ended it for good; None while it works.
    """

    def __init__(
        self,
        tts: Synthesizer,
        settings: Settings,
        metrics: Metrics,
        on_failure: Callable[[], object] = lambda: None,
    ):
        self._tts, self._settings, self._metrics, self._on_failure = tts, settings, metrics, on_failure
        voices = list_voices(settings.voices).values()
        if not voices:
            raise UserError("there are no voices to speak in: `valle voice add` makes one, --voices names their folder")
        self._shortest_prompt = min(len(Voice.load(path).codes) for path in voices)
        sampling, most = settings.options.sampling, tts.model.max_tokens
        self._engine = Engine(
            tts.ar, sampling, slots=settings.slots, max_tokens=most, max_frames=most, steps=settings.steps
        )
        # Few sizes, so that few programs are compiled.
        self._sizes = [size for size in (1, 4, 16, 64) if size <= settings.options.batch_size]
        self._phonemizing = threading.Lock()  # espeak keeps its state in globals
        self._changed = threading.Condition()  # guards what follows
        self._open: set[Ticket] = set()
        self._waiting: collections.deque[_Utterance] = collections.deque()
        self._stopping = False
        self._drawing: dict[Task, _Utterance] = {}
        self._drawn: queue.SimpleQueue[tuple[_Utterance, np.ndarray, list[Take]] | None] = queue.SimpleQueue()
        self._usual_seconds = 1.0
        self._threads = [threading.Thread(target=self._guard, args=[work]) for work in (self._draw, self._finish)]
        self.ready = False
        self.broken: BaseException | None = None
        metrics.watch("waiting_utterances", "Utterances that wait for a slot.", lambda: len(self._waiting))
        metrics.watch("drawing_utterances", "Utterances that are being drawn.", lambda: len(self._drawing))
        metrics.watch("slots", "Utterances that can be drawn side by side.", lambda: settings.slots)
        metrics.watch("occupancy", "Share of the slots that drew, since the start.", lambda: self.occupancy.share)

    @property
    def sample_rate(self) -> int:
        """Of all audio."""
        return self._tts.codec.info.sample_rate

    @property
    def occupancy(self) -> Occupancy:
        """How full the slots have been since it was ready."""
        return self._engine.occupancy

    def voices(self) -> list[str]:
        """The names of the voices that are there now."""
        return list(list_voices(self._settings.voices))

    def start(self) -> None:
        """Begins to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the work; what is not done by now gets an error."""
        self._end_all(BrokenError("the server is stopping"))
        for thread in self._threads:
            thread.join()

    def say(self, request: SpeechRequest, send: Callable[[Audio | AudioChunk | Exception], object]) -> Ticket:
        """Takes a request; `send` gets what comes of it. Phonemizes, so that it takes some milliseconds.

        Raises:
          UserError: the text cannot be said; an `UnknownVoiceError`: in that voice.
          FullError: too much waits already.
          BrokenError: the service has failed.
        """
        self._check_room()
        path = list_voices(self._settings.voices).get(request.voice)  # no path is made of what a client says
        if path is None:
            raise UnknownVoiceError(f"no voice {request.voice!r}; GET /v1/voices lists them")
        voice, tts, options = Voice.load(path), self._tts, self._settings.options
        with self._phonemizing:
            pieces = [] if fits(tts, request.text, voice) else cut(tts, request.text, voice, _READING)
            if request.stream and pieces:
                raise UserError("the text is too long to be streamed: leave out stream_format, or split it")
            if request.stream and options.best_of != 1:
                raise UserError("this server chooses among several takes, so that it cannot stream")
            texts = [piece.text for piece in pieces] or [request.text]
            jobs = tts.jobs([Request(text, voice) for text in texts], options)
        ticket = Ticket(send, secrets.randbelow(MOST_SEED) if request.seed is None else request.seed, pieces)
        utterances = [_Utterance(ticket, self._in_slot(job), number) for number, job in enumerate(jobs)]
        if request.stream:
            utterances[0].stream = _Stream(StreamDecoder(tts, jobs[0], options, self._settings.pace))
        with self._changed:
            self._check_room()
            self._open.add(ticket)
            self._waiting.extend(utterances)
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nothing more is drawn for a ticket or sent. Does nothing where all is done."""
        with self._changed:
            if ticket not in self._open:
                return
            self._open.remove(ticket)
            ticket.cancelled = True
            self._waiting = collections.deque(u for u in self._waiting if u.ticket is not ticket)
        self._metrics.cancelled.inc()

    def _check_room(self) -> None:
        if self.broken or self._stopping:
            raise BrokenError("the server has stopped working")
        if len(self._waiting) >= self._settings.max_waiting:
            raise FullError(max(1, round(self._usual_seconds)))

    def _in_slot(self, job: Job) -> Job:
        """A job that draws no more than there is room for."""
        room = self._tts.model.max_tokens - job.prefix_length - mark_tokens(self._tts.ar[0].config)
        if room <= job.min_frames:
            raise UserError("the prompt and the text need more tokens than this model was trained on")
        return dataclasses.replace(job, max_frames=min(job.max_frames, room))

    def _guard(self, work: Callable[[], None]) -> None:
        """Runs a thread's work; where that fails, nobody waits in vain."""
        try:
            work()
        except BaseException as error:
            _log.exception("the service has failed")
            self.broken = error
            self._end_all(BrokenError("the server has failed"))
            self._on_failure()

    def _end_all(self, error: Exception) -> None:
        with self._changed:
            self._stopping = True
            tickets, self._open = self._open, set()
            self._waiting.clear()
            self._changed.notify_all()
        for ticket in tickets:
            ticket.cancelled = True
            ticket.send(error)

    def _draw(self) -> None:
        """What the drawing thread does."""
        try:
            self._draw_all()
        finally:
            self._drawn.put(None)

    def _draw_all(self) -> None:
        if self._settings.warm_up:
            start = time.perf_counter()
            for _ in warm_up(self._tts, self._engine, self._settings.options, self._sizes, self._shortest_prompt):
                if self._stopping:
                    break
            self._engine.occupancy.steps = self._engine.occupancy.drawn = 0
            _log.info("compiled what requests will need in %.0f s", time.perf_counter() - start)
        self.ready = True
        for task, takes in self._engine.run(self._tasks()):
            self._drawn.put((self._drawing.pop(task), takes[0].codes[:, 0], takes))

    def _tasks(self) -> Iterator[Task | None]:
        """What waits; None where nothing does, and waits itself where the engine has nothing to draw either."""
        while True:
            with self._changed:
                while not (self._waiting or self._drawing or self._stopping):
                    self._changed.wait()
                if self._stopping:
                    return
                utterance = self._waiting.popleft() if self._waiting else None
            yield None if utterance is None else self._task(utterance)

    def _task(self, utterance: _Utterance) -> Task:
        ticket = utterance.ticket

        def follow(codes: np.ndarray) -> bool:
            if ticket.cancelled:
                self._drawing.pop(task, None)  # each of its takes is asked
            elif utterance.stream is not None:
                self._drawn.put((utterance, codes, []))
            return not ticket.cancelled

        # A piece that is drawn anew is another utterance, as in `synthesize_long`.
        number = utterance.number + (utterance.repeated << 24)
        keys = take_keys(ticket.seed, [number], self._settings.options.takes(utterance.tries))[0]
        task = Task("", utterance.job, keys, follow)
        utterance.tries += 1
        self._drawing[task] = utterance
        return task

    def _again(self, utterance: _Utterance) -> None:
        """Has an utterance drawn once more, before all others."""
        self._metrics.redrawn.inc()
        with self._changed:
            if not utterance.ticket.cancelled:
                self._waiting.appendleft(utterance)
                self._changed.notify_all()

    def _finish(self) -> None:
        """What the finishing thread does: a chunk of every stream that is due, then a group of whole utterances."""
        streams: set[_Utterance] = set()
        whole: list[tuple[_Utterance, list[Take]]] = []
        while True:
            idle = not whole and not any(utterance.stream.due for utterance in streams if utterance.stream)
            arrived = [self._drawn.get()] if idle else []
            while not self._drawn.empty():
                arrived.append(self._drawn.get())
            for what in arrived:
                if what is None:
                    return
                utterance, codes, takes = what
                if utterance.stream is not None:
                    utterance.stream.codes, utterance.stream.take = codes, takes[0] if takes else None
                    streams.add(utterance)
                else:
                    whole.append((utterance, takes))
            for utterance in list(streams):
                if utterance.ticket.cancelled or self._chunk(utterance):
                    streams.remove(utterance)
            whole = [(utterance, takes) for utterance, takes in whole if not utterance.ticket.cancelled]
            if whole:
                size = max(size for size in self._sizes if size <= len(whole))
                self._finish_whole(whole[:size])
                whole = whole[size:]

    def _chunk(self, utterance: _Utterance) -> bool:
        """Sends the next chunk of a stream if that is due; True where it was the last."""
        stream, ticket = utterance.stream, utterance.ticket
        assert stream is not None
        if not stream.due:
            return False
        last = stream.last
        chunk = stream.decoder.next(stream.codes, last=last)
        if not stream.parts:
            stream.first_audio_seconds = ticket.seconds
            self._metrics.first_audio.observe(stream.first_audio_seconds)
        stream.parts.append(chunk.samples)
        if last:
            assert stream.take is not None
            samples = np.concatenate(stream.parts)
            info = describe(utterance.job, stream.take, samples, self._tts.codec.info)
            info |= {"tries": 1, "seed": ticket.seed, "first_audio_seconds": stream.first_audio_seconds}
            self._metrics.bad_takes.inc(bool(info["problems"]))
            self._close(ticket, info)
            chunk = dataclasses.replace(chunk, info=info)
        ticket.send(chunk)
        return last

    def _finish_whole(self, some: list[tuple[_Utterance, list[Take]]]) -> None:
        """Audio of some utterances: for those who wait for it, or to be drawn again."""
        options = self._settings.options
        audios = self._tts.finish([u.job for u, _ in some], [takes for _, takes in some], options=options)
        for (utterance, _), audio in zip(some, audios, strict=True):
            audio.info.update(tries=utterance.tries, seed=utterance.ticket.seed)
            bad = bool(audio.info["problems"])
            self._metrics.bad_takes.inc(bad)
            if bad and utterance.tries < options.tries:
                self._again(utterance)
            elif utterance.ticket.pieces:
                self._join(utterance, audio)
            else:
                self._give(utterance.ticket, audio)

    def _join(self, utterance: _Utterance, audio: Audio) -> None:
        """Keeps a piece; when all are there, has one drawn anew that repeats the one before, or joins them."""
        ticket = utterance.ticket
        ticket.said[utterance.number] = utterance, audio
        if len(ticket.said) < len(ticket.pieces):
            return
        said = [ticket.said[number] for number in range(len(ticket.pieces))]
        for (_, before), (piece, after) in itertools.pairwise(said):
            if not repeats(before.codes, after.codes, self._tts.codec.info):
                continue
            if piece.repeated + 1 < _READING.tries:
                piece.repeated, piece.tries = piece.repeated + 1, 0
                del ticket.said[piece.number]
                return self._again(piece)
            after.info["problems"] = sorted({*after.info["problems"], "repeat"})
        self._give(ticket, merge(ticket.pieces, [audio for _, audio in said], ticket.seed))

    def _give(self, ticket: Ticket, audio: Audio) -> None:
        """Sends a whole."""
        self._metrics.whole.observe(ticket.seconds)
        self._close(ticket, audio.info)
        ticket.send(audio)

    def _close(self, ticket: Ticket, info: dict[str, Any]) -> None:
        """Counts what a ticket got, as its info says."""
        with self._changed:
            self._open.discard(ticket)
        self._usual_seconds += (ticket.seconds - self._usual_seconds) / 8
        self._metrics.audio_seconds.inc(info["seconds"])
        if info["problems"]:
            self._metrics.with_problems.inc()
            _log.warning("speech with %s (seed %d)", ", ".join(info["problems"]), ticket.seed)
