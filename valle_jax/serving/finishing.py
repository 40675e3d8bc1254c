"""From drawn codes to audio: fills in the other codebooks, decodes, judges, joins, and sends."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from valle_jax.inference.batching import Take
from valle_jax.inference.joints import repeats
from valle_jax.inference.long_text import merge
from valle_jax.inference.request import Audio, Options
from valle_jax.inference.streaming import AudioChunk
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.tickets import READING, Ticket, Utterance

# An utterance, its codes so far, int32 [T], and its takes: none while it is being drawn.
Drawn = tuple[Utterance, np.ndarray, list[Take]]


class Finisher:
    """Makes of utterances what their tickets get.

    Args:
      tts: the model.
      options: how everything is said.
      metrics: where it counts what it does.
      sizes: how many utterances are finished side by side; few, so that few programs are compiled.
      draw: has utterances drawn before all that wait.
      close: is called with a ticket and the info of what it gets, before that is sent.
    """

    def __init__(
        self,
        tts: Synthesizer,
        options: Options,
        metrics: Metrics,
        *,
        sizes: list[int],
        draw: Callable[[Sequence[Utterance]], None],
        close: Callable[[Ticket, dict[str, Any]], None],
    ):
        self._tts, self._options, self._metrics, self._sizes = tts, options, metrics, sizes
        self._draw, self._close = draw, close

    def run(self, drawn: queue.SimpleQueue[Drawn | None]) -> None:
        """Finishes what comes, until None does: a chunk of every stream that is due, then a group of wholes."""
        streams: set[Utterance] = set()
        whole: list[tuple[Utterance, list[Take]]] = []
        while True:
            idle = not whole and not any(utterance.stream.due for utterance in streams if utterance.stream)
            arrived = [drawn.get()] if idle else []
            while not drawn.empty():
                arrived.append(drawn.get())
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
                self._finish(whole[:size])
                whole = whole[size:]

    def _chunk(self, utterance: Utterance) -> bool:
        """Sends the next chunk of a stream if that is due; True where it was the last."""
        stream, ticket = utterance.stream, utterance.ticket
        assert stream is not None
        if not stream.due:
            return False
        last = stream.last
        chunk = stream.decoder.next(stream.codes, last=last)
        if not stream.first_audio_seconds:
            stream.first_audio_seconds = ticket.seconds
            self._metrics.first_audio.observe(stream.first_audio_seconds)
            self._draw(ticket.later)
        if last:
            assert stream.take is not None
            info = stream.decoder.describe(stream.take)
            info |= {"tries": 1, "seed": ticket.seed, "first_audio_seconds": stream.first_audio_seconds}
            self._metrics.bad_takes.inc(bool(info["problems"]))
            chunk = dataclasses.replace(chunk, info=info)
        if ticket.joiner is None:
            self._send(ticket, chunk)
        else:
            self._send(ticket, ticket.joiner.stream(chunk))
            if last:
                ticket.audios.append(ticket.joiner.audios[0])
                self._join(ticket)
        return last

    def _finish(self, some: list[tuple[Utterance, list[Take]]]) -> None:
        """Audio of some utterances: for those who wait for it, or to be drawn again."""
        options = self._options
        audios = self._tts.finish([u.job for u, _ in some], [takes for _, takes in some], options=options)
        for (utterance, _), audio in zip(some, audios, strict=True):
            audio.info.update(tries=utterance.tries, seed=utterance.ticket.seed)
            bad = bool(audio.info["problems"])
            self._metrics.bad_takes.inc(bad)
            if bad and utterance.tries < options.tries:
                self._redraw(utterance)
            elif utterance.ticket.pieces:
                utterance.ticket.said[utterance.number] = utterance, audio
                self._join(utterance.ticket)
            else:
                self._give(utterance.ticket, audio)

    def _join(self, ticket: Ticket) -> None:
        """Takes the pieces that are done in their order; one that repeats the one before it is drawn anew."""
        while (number := len(ticket.audios)) in ticket.said:
            piece, audio = ticket.said.pop(number)
            if ticket.audios and repeats(ticket.audios[-1].codes, audio.codes, self._tts.codec.info):
                if piece.repeated + 1 < READING.tries:
                    piece.repeated, piece.tries = piece.repeated + 1, 0
                    return self._redraw(piece)
                audio.info["problems"] = sorted({*audio.info["problems"], "repeat"})
            ticket.audios.append(audio)
            if ticket.joiner is not None:
                self._send(ticket, ticket.joiner.append(audio))
        if ticket.joiner is None and len(ticket.audios) == len(ticket.pieces):
            self._give(ticket, merge(ticket.pieces, ticket.audios, ticket.seed))

    def _redraw(self, utterance: Utterance) -> None:
        self._metrics.redrawn.inc()
        self._draw([utterance])

    def _send(self, ticket: Ticket, chunk: AudioChunk) -> None:
        """Sends a chunk, of which the last has the info."""
        if chunk.info is not None:
            self._close(ticket, chunk.info)
        ticket.send(chunk)

    def _give(self, ticket: Ticket, audio: Audio) -> None:
        """Sends a whole."""
        self._metrics.whole.observe(ticket.seconds)
        self._close(ticket, audio.info)
        ticket.send(audio)
