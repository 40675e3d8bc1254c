"""One shard of a transcription: recordings, cut into pieces, with what is heard in each."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_prep.files import write_json
from data_prep.filters import SILENT_PEAK, Rejection
from data_prep.sources import Recording
from data_prep.sources.audio import AudioReader
from data_prep.sources.recording import part
from data_prep.transcription.segmentation import RATE, Piece, Segmentation, cut, detect_speech
from data_prep.workers import At
from valle_jax.errors import UserError
from valle_jax.hearing.recognition import Recogniser, TimedWord, TimingRecogniser, get_recogniser
from valle_jax.storage import is_remote

PARTS = "parts"  # folder of the shards' results
MIN_SECONDS = 1.0  # of a piece; `valle prepare` can be asked for more
WINDOW_SECONDS = 600.0  # of a recording that are in memory at a time


@dataclasses.dataclass(frozen=True)
class PiecesJob:
    """All that a worker process needs for one shard.

    Attributes:
      folder: of the transcription.
      shard, n_shards: which of how many.
      recordings: of this shard, in order; their texts are not looked at.
      recogniser: as `get_recogniser` takes it.
      segmentation: lengths of the pieces.
      careful: not needed, since each recording is announced anyway.
      poison: recordings that are not to be touched, by position, and why.
    """

    folder: str
    shard: int
    n_shards: int
    recordings: tuple[Recording, ...]
    recogniser: str
    segmentation: Segmentation
    careful: bool = False
    poison: dict[int, Rejection] = dataclasses.field(default_factory=dict)


def part_path(folder: str | os.PathLike, shard: int, n_shards: int) -> pathlib.Path:
    """Where the result of a shard is kept: `entries` of the manifest, lines that are `rejected`, `seconds` heard."""
    return pathlib.Path(folder) / PARTS / f"{shard:05d}-of-{n_shards:05d}.json"


def transcribe_shard(job: PiecesJob, at: At = lambda _: None) -> float:
    """Writes the result of a shard, unless it is there; returns the seconds of audio that were transcribed."""
    path = part_path(job.folder, job.shard, job.n_shards)
    if path.exists():  # another task was faster
        return json.loads(path.read_text(encoding="utf-8"))["seconds"]
    recogniser = _recogniser(job.recogniser)
    entries: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []

    def reject(name: str, source: str, rejection: Rejection) -> None:
        rejected.append({"utterance_id": name, "audio": source, **dataclasses.asdict(rejection)})

    for i, recording in enumerate(job.recordings):
        at(i)
        if i in job.poison:
            reject(recording.utterance_id, recording.source, job.poison[i])
            continue
        found = 0
        try:
            for piece, samples in _pieces(recording, job.segmentation):
                at(i)
                heard = _hear(recogniser, samples, piece)
                name = f"{recording.utterance_id}_{found:04d}"
                found += 1
                if isinstance(heard, Rejection):
                    reject(name, part(recording.source.partition("#")[0], piece.start, piece.end), heard)
                else:
                    entries.append(_entry(job.folder, recording, name, piece, *heard))
        except UserError as error:
            reject(recording.utterance_id, recording.source, Rejection("unreadable audio", str(error)))
            continue
        if not found:
            reject(recording.utterance_id, recording.source, Rejection("no speech", "no frame of it is speech"))
    seconds = sum(entry["end"] - entry["start"] for entry in entries)
    write_json(path, {"entries": entries, "rejected": rejected, "seconds": seconds})
    return seconds


def _pieces(recording: Recording, options: Segmentation) -> Iterator[tuple[Piece, np.ndarray]]:
    """Pieces, in seconds of the file, and their float32 [samples] at RATE; UserError where it cannot be read."""
    reader = AudioReader(())
    start = recording.start_seconds or 0.0
    while True:
        end = start + WINDOW_SECONDS
        is_last = recording.end_seconds is not None and end >= recording.end_seconds
        end = min(end, recording.end_seconds or end)
        window = dataclasses.replace(recording, start_seconds=start, end_seconds=end)
        samples = reader.read(window, RATE)
        is_last = is_last or len(samples) < (end - start - 0.1) * RATE
        pieces = cut(*detect_speech(samples, options.aggressiveness), options)
        goes_on = [piece for piece in pieces[-1:] if not is_last and piece.end > end - start - options.long_pause]
        for piece in pieces[: len(pieces) - len(goes_on)]:
            inside = samples[round(piece.start * RATE) : round(piece.end * RATE)]
            moved = Piece(round(start + piece.start, 3), round(start + piece.end, 3), piece.whole)
            yield moved, inside
        if is_last:
            return
        start = round(start + goes_on[0].start, 3) if goes_on else end


def _hear(recogniser: Recogniser, samples: np.ndarray, piece: Piece) -> tuple[str, list[TimedWord]] | Rejection:
    """Text of a piece, and its words where the recogniser times them, in seconds of the file."""
    if not piece.whole:
        return Rejection("no pause", "speech, or music, that would have to be cut where there is no pause")
    if piece.end - piece.start < MIN_SECONDS:
        return Rejection("too short", f"{piece.end - piece.start:.2f} s, less than {MIN_SECONDS:g} s")
    if float(np.abs(samples).max()) < SILENT_PEAK:
        return Rejection("silent audio", f"peak {np.abs(samples).max():.2g} of full scale")
    timed = recogniser.words(samples, RATE) if isinstance(recogniser, TimingRecogniser) else None
    text = (
        recogniser.transcribe([samples], RATE)[0].strip() if timed is None else " ".join(word for word, _, _ in timed)
    )
    words = [(word, round(piece.start + s, 3), round(piece.start + e, 3)) for word, s, e in timed or ()]
    return (text, words) if text else Rejection("nothing heard", f"{recogniser.name} hears no words")


def _entry(
    folder: str, recording: Recording, name: str, piece: Piece, text: str, words: list[TimedWord]
) -> dict[str, Any]:
    """A line of the manifest, as `data_prep.sources.jsonl` reads it."""
    path = recording.audio_path
    entry = {
        "id": name,
        "audio": path if is_remote(path) else os.path.relpath(path, folder),
        "start": piece.start,
        "end": piece.end,
        "text": text,
        "speaker": recording.speaker_id,
        "language": recording.language,
        "split": recording.split,
        "words": words,
    }
    return {key: value for key, value in entry.items() if value or key == "start"}


@functools.cache
def _recogniser(name: str) -> Recogniser:
    return get_recogniser(name)
