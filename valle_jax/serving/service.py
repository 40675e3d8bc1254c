"""The engine behind a queue, without HTTP: requests come from any thread, and what they ask for is said side by side.

One thread draws: it takes what waits whenever the engine has a free slot. Another finishes: it fills in the other
codebooks, decodes, judges, and sends bad takes back to be drawn again. A long text is several utterances.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from valle_jax.errors import UserError
from valle_jax.inference.batching import take_keys, within
from valle_jax.inference.engine import Engine, Occupancy, Task
from valle_jax.inference.long_text import PieceJoiner, cut, fits, utterance_id
from valle_jax.inference.request import Audio, Options, Request
from valle_jax.inference.streaming import AudioChunk, Pace, StreamDecoder
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import Voice, list_voices
from valle_jax.serving.finishing import Drawn, Finisher
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.speech_request import MOST_SEED, SpeechRequest
from valle_jax.serving.tickets import READING, Stream, Ticket, Utterance
from valle_jax.serving.warm_up import warm_up

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
        self._waiting: collections.deque[Utterance] = collections.deque()
        self._stopping = False
        self._drawing: dict[Task, Utterance] = {}
        self._drawn: queue.SimpleQueue[Drawn | None] = queue.SimpleQueue()
        self._finisher = Finisher(
            tts, settings.options, metrics, sizes=self._sizes, draw=self._draw_first, close=self._close
        )
        self._usual_seconds = 1.0
        self._threads = [threading.Thread(target=self._guard, args=[work]) for work in (self._draw, self._finish)]
        self.ready = False
        self.broken: BaseException | None = None
        metrics.watch("waiting_utterances", "Utterances that wait for a slot.", lambda: len(self._waiting))
        metrics.watch("drawing_utterances", "Utterances that are being drawn.", lambda: len(self._drawing))
        metrics.watch("slots", "Utterances that can be drawn side by side.", lambda: settings.slots)
        metrics.watch("occupancy", "Share of the slots that drew, since the start.", lambda: self.occupancy.share)

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
            pieces = [] if fits(tts, request.text, voice) else cut(tts, request.text, voice, READING)
            if request.stream and options.best_of != 1:
                raise UserError("this server chooses among several takes, so that it cannot stream")
            texts = [piece.text for piece in pieces] or [request.text]
            jobs = tts.jobs([Request(text, voice) for text in texts], options)
        ticket = Ticket(send, secrets.randbelow(MOST_SEED) if request.seed is None else request.seed, pieces)
        utterances = [
            Utterance(ticket, within(job, tts.model.max_tokens, tts.ar[0].config), number)
            for number, job in enumerate(jobs)
        ]
        if request.stream:
            utterances[0].stream = Stream(StreamDecoder(tts, jobs[0], options, self._settings.pace))
            ticket.joiner = PieceJoiner(pieces, tts.codec.info.sample_rate, ticket.seed) if pieces else None
            utterances, ticket.later = utterances[:1], utterances[1:]  # which would delay the first audio
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
            settings = self._settings
            for _ in warm_up(
                self._tts, self._engine, settings.options, self._sizes, self._shortest_prompt, settings.pace
            ):
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

    def _task(self, utterance: Utterance) -> Task:
        ticket = utterance.ticket

        def follow(codes: np.ndarray) -> bool:
            if ticket.cancelled:
                self._drawing.pop(task, None)  # each of its takes is asked
            elif utterance.stream is not None:
                self._drawn.put((utterance, codes, []))
            return not ticket.cancelled

        number = utterance_id(utterance.number, utterance.repeated)
        keys = take_keys(ticket.seed, [number], self._settings.options.takes(utterance.tries))[0]
        task = Task("", utterance.job, keys, follow)
        utterance.tries += 1
        self._drawing[task] = utterance
        return task

    def _draw_first(self, utterances: Sequence[Utterance]) -> None:
        """Has utterances drawn before all that wait."""
        with self._changed:
            self._waiting.extendleft(u for u in reversed(utterances) if not u.ticket.cancelled)
            self._changed.notify_all()

    def _finish(self) -> None:
        """What the finishing thread does."""
        self._finisher.run(self._drawn)

    def _close(self, ticket: Ticket, info: dict[str, Any]) -> None:
        """Counts what a ticket got, as its info says."""
        with self._changed:
            self._open.discard(ticket)
        self._usual_seconds += (ticket.seconds - self._usual_seconds) / 8
        self._metrics.audio_seconds.inc(info["seconds"])
        if info["problems"]:
            self._metrics.with_problems.inc()
            _log.warning("speech with %s (seed %d)", ", ".join(info["problems"]), ticket.seed)
