"""Manifests of one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from data_prep.sources.corpus import Corpus
from data_prep.sources.recording import Recording, part
from valle_jax.data.schema import SPLITS
from valle_jax.errors import UserError


def is_jsonl(corpus: Corpus) -> bool:
    """Whether there is one such manifest."""
    return len(corpus.matching(".jsonl")) == 1


def jsonl(corpus: Corpus) -> Iterator[Recording]:
    """A manifest of one JSON object a line, or the folder that holds it: `audio` (relative to it), `text`, `speaker`.

    Optional: `id` (default: `audio` without its suffix), `language`, `split` (one of SPLITS), `start` and `end` in
    seconds of the part of the audio that is meant, and `words`, a list of [word, start, end] in seconds of the audio.

    Raises:
      UserError: naming the line that is no JSON object, has no audio or speaker, an unknown split, a part that is
        none, or words that are not as described.
    """
    (manifest,) = corpus.matching(".jsonl")
    for number, entry in enumerate(json_lines(corpus, manifest), start=1):
        where = f"{corpus.address(manifest)}: entry {number}"
        known = ("audio", "text", "speaker", "id", "language", "split")
        fields = {name: encodable(str(entry[name])) for name in known if entry.get(name) is not None}
        for name in ("audio", "speaker"):
            if name not in fields:
                raise UserError(f"{where} has no field {name!r}; needed are audio, text, speaker")
        if fields.get("split", SPLITS[0]) not in SPLITS:
            raise UserError(f"{where} has split {fields['split']!r}; known are {', '.join(SPLITS)}")
        utterance_id, source, start, end = os.path.splitext(fields["audio"])[0], fields["audio"], None, None
        if entry.get("start") is not None or entry.get("end") is not None:
            try:
                start, end = float(entry["start"]), float(entry["end"])
            except (KeyError, TypeError, ValueError):
                start, end = 0.0, 0.0
            if not 0 <= start < end:
                raise UserError(f"{where} needs numbers 0 <= start < end in seconds, or neither")
            utterance_id, source = part(utterance_id, start, end), part(source, start, end)
        yield Recording(
            utterance_id=fields.get("id", utterance_id),
            speaker_id=fields["speaker"],
            text=fields.get("text", "").strip(),
            audio_path=fields["audio"] if "://" in fields["audio"] else corpus.address(fields["audio"]),
            source=source,
            language=fields.get("language"),
            split=fields.get("split"),
            start_seconds=start,
            end_seconds=end,
            words=_words(entry.get("words") or [], where),
        )


def _words(words: Any, where: str) -> tuple[tuple[str, float, float], ...]:
    """Words with times, in order; UserError naming the entry where they are something else."""
    try:
        found = tuple((encodable(str(word)), float(start), float(end)) for word, start, end in words)
    except (TypeError, ValueError):
        found = (("", 1.0, 0.0),)
    times = [time for _, *both in found for time in both]
    if not all(0 <= time < math.inf for time in times) or times != sorted(times):
        raise UserError(f"{where} has words that are not a list of [word, start, end] with times in seconds, ascending")
    return found


def json_lines(corpus: Corpus, name: str) -> Iterator[dict]:
    """The objects of a manifest; UserError naming the first line that is none."""
    for number, line in enumerate(corpus.lines(name), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"{corpus.address(name)}: entry {number} is not a JSON object")
        yield entry


def encodable(text: str) -> str:
    """Without what JSON escapes can hold and UTF-8 cannot: halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()
