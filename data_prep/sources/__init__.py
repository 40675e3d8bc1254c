"""Corpus layouts: each is one function from the files of a corpus to `Recording`s, in an order that only they decide.

To add a layout, write such a function and the test that recognises it, and list both in `LAYOUTS`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

from data_prep.sources.audio import TFDS
from data_prep.sources.common_voice import common_voice, is_common_voice
from data_prep.sources.corpus import Corpus
from data_prep.sources.folders import folders, has_audio
from data_prep.sources.jsonl import is_jsonl, jsonl
from data_prep.sources.lhotse import is_lhotse, lhotse
from data_prep.sources.librilight import is_librilight, librilight
from data_prep.sources.ljspeech import ljspeech
from data_prep.sources.openslr import ARCHIVES, archives, has_transcripts, librispeech, libritts
from data_prep.sources.recording import Recording as Recording
from data_prep.sources.tensorflow_datasets import tfds
from data_prep.sources.vctk import is_vctk, vctk
from valle_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a corpus is recognised and listed."""

    looked_for: str  # what `matches` wants to see, for error messages
    matches: Callable[[Corpus], bool]
    recordings: Callable[[Corpus], Iterator[Recording]]
    deep: bool = False  # whether it looks at any depth: only done where nothing lies at the top


LAYOUTS = {
    "ljspeech": Layout("metadata.csv beside wavs/", lambda c: {"metadata.csv", "wavs"} <= c.top.keys(), ljspeech),
    "vctk": Layout("txt/ beside wav48_silence_trimmed/ or wav48/", is_vctk, vctk),
    "common_voice": Layout("clips/ beside train.tsv or validated.tsv", is_common_voice, common_voice),
    "jsonl": Layout("one *.jsonl (itself, or in the folder)", is_jsonl, jsonl),
    "lhotse": Layout("one *cuts*.jsonl.gz, or *recordings*.jsonl.gz and *supervisions*.jsonl.gz", is_lhotse, lhotse),
    "archives": Layout("*.tar or *.tar.gz of LibriSpeech or LibriTTS", lambda c: bool(c.matching(*ARCHIVES)), archives),
    "librispeech": Layout(
        "*.trans.txt at any depth", functools.partial(has_transcripts, suffix=".trans.txt"), librispeech, deep=True
    ),
    "libritts": Layout(
        "*.normalized.txt at any depth",
        functools.partial(has_transcripts, suffix=".normalized.txt"),
        libritts,
        deep=True,
    ),
    "librilight": Layout(
        "*.flac beside *.json with voice_activity, at any depth", is_librilight, librilight, deep=True
    ),
}


WITHOUT_TEXT = {
    "folders": Layout("*.flac, *.wav, *.ogg, *.opus or *.mp3 at any depth", has_audio, folders, deep=True),
}
"""Those that have no text, and that so many folders fit that they are only recognised where audio is asked for."""


def detect_layout(path: str | os.PathLike, *, without_text: bool = False) -> str:
    """The name of the layout that fits, or `tfds`; where none does and text is not needed, one `WITHOUT_TEXT`.

    Raises:
      UserError: none fits, naming what was looked for, or several do.
    """
    if os.fspath(path).startswith(TFDS):
        return "tfds"
    corpus = Corpus(path)
    for deep in (False, True):
        found = [name for name, layout in LAYOUTS.items() if layout.deep == deep and layout.matches(corpus)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{os.fspath(path)} could be {' or '.join(found)}; name one with --layout")
    for name, layout in WITHOUT_TEXT.items():
        if without_text and layout.matches(corpus):
            return name
    looked_for = "; ".join(f"{name}: {layout.looked_for}" for name, layout in LAYOUTS.items())
    raise UserError(f"no known layout in {os.fspath(path)} (looked for {looked_for}); name one with --layout")


def list_recordings(path: str | os.PathLike, layout: str) -> Iterator[Recording]:
    """The recordings of a corpus, one after the other.

    Raises:
      UserError: no such path, no such layout, or a corpus that is not of this layout.
    """
    if (layout == "tfds") != os.fspath(path).startswith(TFDS):
        raise UserError(f"layout tfds is for --source {TFDS}NAME or {TFDS}DIRECTORY, and for nothing else")
    if layout == "tfds":
        return tfds(os.fspath(path))
    layouts = LAYOUTS | WITHOUT_TEXT
    if layout not in layouts:
        raise UserError(f"unknown layout {layout!r}; known: {', '.join((*layouts, 'tfds'))}")
    corpus = Corpus(path)
    if not layouts[layout].matches(corpus):
        raise UserError(f"{os.fspath(path)} is not of layout {layout}: looked for {layouts[layout].looked_for}")
    return layouts[layout].recordings(corpus)
