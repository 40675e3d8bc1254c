"""Libri-Light: 60,000 hours of audio books without text."""

from __future__ import annotations

import json
from collections.abc import Iterator

from data_prep.sources.corpus import Corpus, joined
from data_prep.sources.recording import Recording, part
from valle_jax.errors import UserError

LONGEST_SECONDS = 20.0  # VALL-E trains on crops of 10 to 20 s (Wang et al. 2023, section 5.1)


def is_librilight(corpus: Corpus) -> bool:
    """Whether the first audio found has its json with voice activity."""
    if corpus.file:
        return False
    for folder, names in corpus.walk():
        for name in names:
            if name.endswith(".flac"):
                beside = name.removesuffix(".flac") + ".json"
                return beside in names and "voice_activity" in _facts(corpus, joined(folder, beside))
    return False


def librilight(corpus: Corpus) -> Iterator[Recording]:
    """Libri-Light: SPEAKER/BOOK/NAME.flac beside NAME.json with `speaker` and `voice_activity`, at any depth.

    Layout: https://github.com/facebookresearch/libri-light/blob/main/data_preparation/README.md. As its cut_by_vad.py
    does, stretches of speech are joined as long as the piece stays below a length, here LONGEST_SECONDS from the start
    of the first to the end of the last, pauses included; a longer stretch is a piece of its own. There is no text.

    Raises:
      UserError: a json that is not as described.
    """
    for folder, names in corpus.walk():
        for name in names:
            if not name.endswith(".flac"):
                continue
            stem = name.removesuffix(".flac")
            if f"{stem}.json" not in names:
                raise UserError(f"{corpus.address(joined(folder, name))} has no {stem}.json beside it")
            facts = _facts(corpus, joined(folder, f"{stem}.json"))
            path = joined(folder, name)
            try:
                speaker_id = str(facts["speaker"])
                pieces = _pieces([(float(start), float(end)) for start, end in facts["voice_activity"]])
            except (KeyError, TypeError, ValueError):
                where = corpus.address(joined(folder, f"{stem}.json"))
                raise UserError(f"{where} has no speaker, or no voice_activity of [start, end] in seconds") from None
            for number, (start, end) in enumerate(pieces):
                yield Recording(
                    utterance_id=f"{joined(folder, stem)}_{number:04d}",
                    speaker_id=speaker_id,
                    text="",
                    audio_path=corpus.address(path),
                    source=part(path, start, end),
                    start_seconds=start,
                    end_seconds=end,
                )


def _pieces(speech: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches of speech, in seconds, joined."""
    pieces: list[tuple[float, float]] = []
    for start, end in speech:
        if pieces and end - pieces[-1][0] <= LONGEST_SECONDS:
            pieces[-1] = pieces[-1][0], end
        else:
            pieces.append((start, end))
    return pieces


def _facts(corpus: Corpus, name: str) -> dict:
    try:
        facts = json.loads("".join(corpus.lines(name)))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{corpus.address(name)} is not a JSON object")
    return facts
