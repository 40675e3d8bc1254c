"""Texts longer than what a model says at once: cut where a reader pauses, said piece by piece, joined at pauses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from valle_jax.errors import UserError
from valle_jax.inference.joints import Joiner, join, repeats
from valle_jax.inference.streaming import AudioChunk, Pace
from valle_jax.inference.synthesizer import Audio, Options, Request, Synthesizer
from valle_jax.inference.voice import Voice
from valle_jax.text.sentences import clauses, paragraphs, sentences

_MARGIN = 1.25  # of a piece: room for speech that is so much slower than its prompt
_LEAST_SECONDS = 1.0  # shorter pieces are not said well


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a long text is read.

    Attributes:
      prompt: of each piece: the voice ("same": pieces are drawn side by side), or the voice and behind it the piece
        before ("sliding": one after the other; the reading goes on as it was, and the voice stays anchored).
      piece_seconds: of the longest piece, by the prompt's speaking rate.
      pause_seconds: between sentences that are said apart.
      paragraph_seconds: between paragraphs.
      clause_seconds: within a sentence that had to be cut.
      tries: how often a piece is drawn until it does not repeat the end of the one before.
    """

    prompt: Literal["same", "sliding"] = "same"
    piece_seconds: float = 10.0
    pause_seconds: float = 0.35
    paragraph_seconds: float = 0.8
    clause_seconds: float = 0.12
    tries: int = 3

    def __post_init__(self):
        for name in ("pause_seconds", "paragraph_seconds", "clause_seconds"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)} must not be negative")
        if self.tries < 1:
            raise UserError(f"tries {self.tries} must be at least 1")
        if self.piece_seconds < _LEAST_SECONDS:
            raise UserError(f"piece_seconds {self.piece_seconds} must be at least {_LEAST_SECONDS}")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a text that is said at once, and the pause behind it."""

    text: str
    pause_seconds: float


def fits(tts: Synthesizer, text: str, voice: Voice) -> bool:
    """Whether the model can say a text at once, by the speaking rate of the voice."""
    return _count(tts, [text])[0] <= _most_symbols(tts, voice, 1.0)


def cut(tts: Synthesizer, text: str, voice: Voice, reading: Reading = Reading()) -> list[Piece]:
    """The pieces of a text: whole sentences where they fit, those of a paragraph of about the same length.

    Raises:
      UserError: the text has no phonemes, or the prompt leaves the model no room for pieces of 1 s.
    """
    (said,) = _count(tts, [voice.text])
    per_second = said / voice.seconds
    room = _most_symbols(tts, voice, _MARGIN) // (2 if reading.prompt == "sliding" else 1)  # of the piece before, too
    if room < _LEAST_SECONDS * per_second:
        raise UserError(
            f"the prompt ({voice.seconds:.1f} s) leaves too few of the {tts.model.max_tokens} tokens that this model "
            "was trained on; use a shorter prompt" + (", or no sliding one" if reading.prompt == "sliding" else "")
        )
    most = min(room, int(reading.piece_seconds * per_second))
    cuts: list[Callable[[str], list[str]]] = [lambda text: sentences(text, tts.language), clauses, str.split]
    pauses = [reading.pause_seconds, reading.clause_seconds, reading.clause_seconds]
    pieces: list[Piece] = []
    for paragraph in paragraphs(text):
        found = _pack(tts, paragraph, most, cuts, pauses)
        if found:
            pieces += [*found[:-1], Piece(found[-1].text, reading.paragraph_seconds)]
    if not pieces:
        raise UserError(f"the text {text!r} has no phonemes")
    return pieces


def _pack(
    tts: Synthesizer, text: str, most: int, cuts: Sequence[Callable[[str], list[str]]], pauses: Sequence[float]
) -> list[Piece]:
    """The parts of a text, as many together as have `most` phonemes; parts that have more are cut by the next rule."""
    parts = cuts[0](text)
    sizes = _count(tts, parts)
    total = sum(sizes) + len(parts)  # with spaces
    aim = total / -(-total // most)
    pieces: list[Piece] = []
    group: list[str] = []
    size = 0

    def close() -> None:
        nonlocal group, size
        if size:
            pieces.append(Piece(" ".join(group), pauses[0]))
        group, size = [], 0

    for part, n in zip(parts, sizes, strict=True):
        if n > most and len(cuts) > 1:
            close()
            inner = _pack(tts, part, most, cuts[1:], pauses[1:])
            pieces += [*inner[:-1], Piece(inner[-1].text, pauses[0])]
            continue
        if size >= aim or (size and size + 1 + n > most):
            close()
        group.append(part)
        size += bool(size) + n
    close()
    return pieces


def _count(tts: Synthesizer, texts: Sequence[str]) -> list[int]:
    """Phonemes of each text."""
    return [len(tts.model.vocabulary.encode(phonemes)) for phonemes in tts.phonemize(texts)]


def _most_symbols(tts: Synthesizer, voice: Voice, margin: float) -> int:
    """Phonemes for which there is room behind a prompt, with `margin` times the frames they are expected to take."""
    said = max(1, len(tts.model.vocabulary.encode(voice.phonemes)))
    room = tts.model.max_tokens - said - len(voice.codes) - 3  # a space, the end of text, a begin of audio or stage
    return int(room / (1 + margin * len(voice.codes) / said))


def synthesize_long(
    tts: Synthesizer,
    text: str,
    *,
    voice: Voice,
    seed: int = 0,
    options: Options = Options(),
    reading: Reading = Reading(),
    progress: Callable[[int, int], object] = lambda done, pieces: None,
) -> Audio:
    """Says a text of any length. Piece i draws as utterance i of `synthesize_batch`.

    A piece that begins with what the one before it ended with, code by code, is drawn again; one that does so in
    `reading.tries` tries has the problem `repeat`.

    Args:
      tts: the model.
      text: what to say; empty lines separate paragraphs.
      voice: the prompt, which must know what it says: see `Synthesizer.voice`.
      seed, options: as for `Synthesizer.synthesize`.
      reading: how it is cut and joined.
      progress: is called with the pieces that are done and with all of them.

    Returns:
      The joined audio. `codes` are those of all pieces, silence at the joints included. `info` is of the whole, and
      `info["pieces"]` has `text`, `start_seconds`, `end_seconds` and the info of each piece.

    Raises:
      UserError: as `cut` does.
    """
    pieces = cut(tts, text, voice, reading)
    audios: list[Audio] = []
    prompt = voice
    while len(audios) < len(pieces):
        first = len(audios)
        some = pieces[first : first + (options.batch_size if reading.prompt == "same" else 1)]
        audios += _say(tts, some, prompt, audios, seed=seed, options=options, tries=reading.tries)
        prompt = _next_prompt(tts, voice, pieces, audios, reading)
        progress(len(audios), len(pieces))
    return merge(pieces, audios, seed)


def stream_long(
    tts: Synthesizer,
    text: str,
    *,
    voice: Voice,
    seed: int = 0,
    options: Options = Options(),
    reading: Reading = Reading(),
    pace: Pace = Pace(),
) -> Iterator[AudioChunk]:
    """Says a text of any length and yields it in chunks: the first piece while it is drawn, each other one as a whole.

    So only the first piece cannot be drawn again. Its codebook 1 is that of `synthesize_long` with one try. The others
    have the codes of `synthesize_long`, unless the prompt slides. The silence behind the first counts as its pause,
    and makes that longer where it is.

    Raises:
      UserError: as `cut` and `Synthesizer.stream` do; at once.
    """
    pieces = cut(tts, text, voice, reading)
    first = tts.stream(pieces[0].text, prompt=voice, seed=seed, options=options, pace=pace)
    return _chunks(tts, pieces, first, voice, seed, options, reading)


def _chunks(
    tts: Synthesizer,
    pieces: Sequence[Piece],
    first: Iterator[AudioChunk],
    voice: Voice,
    seed: int,
    options: Options,
    reading: Reading,
) -> Iterator[AudioChunk]:
    joiner = PieceJoiner(pieces, tts.codec.info.sample_rate, seed)
    for chunk in first:
        yield joiner.stream(chunk)
    while len(joiner.audios) < len(pieces):
        some = pieces[len(joiner.audios) :][:1]
        prompt = _next_prompt(tts, voice, pieces, joiner.audios, reading)
        (audio,) = _say(tts, some, prompt, joiner.audios, seed=seed, options=options, tries=reading.tries)
        yield joiner.append(audio)


def _say(
    tts: Synthesizer,
    pieces: Sequence[Piece],
    prompt: Voice,
    before: Sequence[Audio],
    *,
    seed: int,
    options: Options,
    tries: int,
) -> list[Audio]:
    """The pieces behind those that were said before, drawn side by side, and again where one repeats another."""
    first, codes = len(before), before[-1].codes if before else None
    requests = [Request(piece.text, prompt) for piece in pieces]
    audios = tts.synthesize_batch(requests, seed=seed, options=options, first=first)
    for i, request in enumerate(requests):
        for number in range(1, tries + 1):
            if codes is None or not repeats(codes, audios[i].codes, tts.codec.info):
                break
            if number == tries:
                audios[i].info["problems"] = [*audios[i].info["problems"], "repeat"]
            else:
                again = utterance_id(first + i, number)
                (audios[i],) = tts.synthesize_batch([request], seed=seed, options=options, first=again)
        codes = audios[i].codes
    return audios


def utterance_id(piece: int, repeated: int) -> int:
    """As which utterance a piece is drawn that was drawn so often before and repeated the one before it."""
    return piece + (repeated << 24)


class PieceJoiner:
    """Gives out the pieces of a text one by one, the first of them while it is drawn.

    Attributes:
      audios: the pieces that were given out.
    """

    def __init__(self, pieces: Sequence[Piece], sample_rate: int, seed: int):
        """`seed` is only noted."""
        self.audios: list[Audio] = []
        self._pieces, self._seed = pieces, seed
        self._first: list[AudioChunk] = []
        self._joiner = Joiner(sample_rate)
        self._first_audio_seconds = 0.0

    def stream(self, chunk: AudioChunk) -> AudioChunk:
        """A chunk of the first piece, which ends with the one that has the info."""
        self._first.append(chunk)
        if chunk.info is None:
            return chunk
        self._first_audio_seconds = chunk.info.pop("first_audio_seconds")
        samples, codes = (np.concatenate([getattr(c, name) for c in self._first]) for name in ("samples", "codes"))
        self._joiner.append(samples, trim_end=False)
        self.audios.append(Audio(samples, chunk.sample_rate, chunk.info, codes))
        return dataclasses.replace(chunk, info=self._info())

    def append(self, audio: Audio) -> AudioChunk:
        """The next piece, and the pause before it."""
        pause = self._pieces[len(self.audios) - 1].pause_seconds
        self.audios.append(audio)
        samples = self._joiner.append(audio.samples, pause, trim_end=len(self.audios) < len(self._pieces))
        return AudioChunk(samples, audio.sample_rate, audio.codes, self._info())

    def _info(self) -> dict[str, Any] | None:
        """Of the whole, once all is there."""
        if len(self.audios) < len(self._pieces):
            return None
        info = _describe(self._pieces, self.audios, self._joiner.spans, self._joiner.length, self._seed)
        return info | {"first_audio_seconds": self._first_audio_seconds}


def merge(pieces: Sequence[Piece], audios: Sequence[Audio], seed: int) -> Audio:
    """The pieces that were said, joined: see `synthesize_long`; `seed` is only noted."""
    pauses = [piece.pause_seconds for piece in pieces]
    samples, spans = join([audio.samples for audio in audios], pauses, audios[0].sample_rate)
    info = _describe(pieces, audios, spans, len(samples), seed)
    return Audio(samples, audios[0].sample_rate, info, np.concatenate([audio.codes for audio in audios]))


def _describe(
    pieces: Sequence[Piece], audios: Sequence[Audio], spans: Sequence[tuple[float, float]], length: int, seed: int
) -> dict[str, Any]:
    """The info of the whole, of `length` samples, and of its pieces."""
    rows = [
        {"text": piece.text, "start_seconds": start, "end_seconds": end, **audio.info}
        for piece, audio, (start, end) in zip(pieces, audios, spans, strict=True)
    ]
    frames = [row["frames"] for row in rows]
    return {
        "frames": sum(frames),
        "seconds": length / audios[0].sample_rate,
        "finished": all(row["finished"] for row in rows),
        "log_probability": float(np.average([row["log_probability"] for row in rows], weights=np.maximum(frames, 1))),
        "problems": sorted({problem for row in rows for problem in row["problems"]}),
        "unknown_symbols": sorted({symbol for row in rows for symbol in row["unknown_symbols"]}),
        "seed": seed,
        "pieces": rows,
    }


def _next_prompt(
    tts: Synthesizer, voice: Voice, pieces: Sequence[Piece], said: Sequence[Audio], reading: Reading
) -> Voice:
    """Of what follows: the voice, and where the prompt slides also the last piece, if that was good and leaves room."""
    if reading.prompt == "same" or len(said) == len(pieces) or said[-1].info["problems"]:
        return voice
    piece = pieces[len(said) - 1]
    (phonemes,) = tts.phonemize([piece.text])
    slid = dataclasses.replace(
        voice,
        codes=np.concatenate([voice.codes, said[-1].codes.astype(voice.codes.dtype)]),
        text=f"{voice.text} {piece.text}",
        phonemes=f"{voice.phonemes} {phonemes}",
    )
    return slid if fits(tts, pieces[len(said)].text, slid) else voice
