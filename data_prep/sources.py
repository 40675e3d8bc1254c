"""Corpus layouts: each is one function from a path to `Recording`s, in an order that only depends on the files.

To add a layout, write such a function and the test that recognises it, and list both in `LAYOUTS`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator

from valle_jax.data.schema import SPLITS
from valle_jax.errors import UserError

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One audio file with its transcript, not yet read.

    Attributes:
      utterance_id: unique in the corpus.
      speaker_id: unique in the corpus.
      text: transcript; "" where the corpus has none.
      audio_path: file to read; it may be missing.
      source: where it came from, the same on every machine (the audio's path inside the corpus).
      language: espeak-ng code, or None: the one asked for when preparing.
      split: one of SPLITS, or None: drawn when preparing.
    """

    utterance_id: str
    speaker_id: str
    text: str
    audio_path: str
    source: str
    language: str | None = None
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a corpus is recognised and listed."""

    looked_for: str  # what `matches` wants to see, for error messages
    matches: Callable[[pathlib.Path], bool]
    recordings: Callable[[pathlib.Path], Iterator[Recording]]


def librispeech(path: pathlib.Path) -> Iterator[Recording]:
    """LibriSpeech: SPEAKER/CHAPTER/ID.flac with ID TEXT lines in *.trans.txt, at any depth, one or many subsets.

    Audio without a line is listed with an empty text, a line without audio with a path that does not exist.
    """
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        audio = {os.path.splitext(name)[0]: name for name in names if name.endswith(AUDIO_SUFFIXES)}
        texts: dict[str, str] = {}
        for name in names:
            if name.endswith(".trans.txt"):
                for line in _lines(os.path.join(folder, name)):
                    utterance_id, _, text = line.partition(" ")
                    texts[utterance_id] = text.strip()
        for utterance_id in sorted(audio.keys() | texts.keys()):
            audio_path = os.path.join(folder, audio.get(utterance_id, utterance_id + ".flac"))
            yield Recording(
                utterance_id=utterance_id,
                speaker_id=utterance_id.partition("-")[0],
                text=texts.get(utterance_id, ""),
                audio_path=audio_path,
                source=_inside(path, audio_path),
            )


def ljspeech(path: pathlib.Path) -> Iterator[Recording]:
    """LJSpeech: metadata.csv of ID|RAW TEXT|NORMALISED TEXT and wavs/ID.wav; one speaker, named like the folder."""
    for line in _lines(path / "metadata.csv"):
        utterance_id, *texts = line.split("|")
        audio_path = path / "wavs" / f"{utterance_id}.wav"
        yield Recording(
            utterance_id=utterance_id,
            speaker_id=path.resolve().name,
            text=next((text.strip() for text in reversed(texts) if text.strip()), ""),
            audio_path=str(audio_path),
            source=_inside(path, audio_path),
        )


def jsonl(path: pathlib.Path) -> Iterator[Recording]:
    """A manifest of one JSON object a line, or the folder that holds it: `audio` (relative to it), `text`, `speaker`.

    Optional: `id` (default: `audio` without its suffix), `language`, `split` (one of SPLITS).

    Raises:
      UserError: naming the line that is no JSON object, has no audio or speaker, or an unknown split.
    """
    manifest = path if path.is_file() else _manifests(path)[0]
    for number, line in enumerate(_lines(manifest), start=1):
        where = f"{manifest}: entry {number}"
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"{where} is not a JSON object")
        known = ("audio", "text", "speaker", "id", "language", "split")
        fields = {name: _encodable(str(entry[name])) for name in known if entry.get(name) is not None}
        for name in ("audio", "speaker"):
            if name not in fields:
                raise UserError(f"{where} has no field {name!r}; needed are audio, text, speaker")
        if fields.get("split", SPLITS[0]) not in SPLITS:
            raise UserError(f"{where} has split {fields['split']!r}; known are {', '.join(SPLITS)}")
        yield Recording(
            utterance_id=fields.get("id", os.path.splitext(fields["audio"])[0]),
            speaker_id=fields["speaker"],
            text=fields.get("text", "").strip(),
            audio_path=str(manifest.parent / fields["audio"]),
            source=fields["audio"],
            language=fields.get("language"),
            split=fields.get("split"),
        )


def _has_transcripts(path: pathlib.Path) -> bool:
    return any(name.endswith(".trans.txt") for _, _, names in os.walk(path) for name in names)


def _manifests(path: pathlib.Path) -> list[pathlib.Path]:
    return [path] if path.is_file() and path.suffix == ".jsonl" else sorted(path.glob("*.jsonl"))


# In this order they are tried: what lies at the top of a folder goes before what lies deep in it.
LAYOUTS = {
    "ljspeech": Layout(
        "metadata.csv beside wavs/", lambda p: (p / "metadata.csv").is_file() and (p / "wavs").is_dir(), ljspeech
    ),
    "jsonl": Layout("one *.jsonl (itself, or in the folder)", lambda p: len(_manifests(p)) == 1, jsonl),
    "librispeech": Layout("*.trans.txt at any depth", _has_transcripts, librispeech),
}


def detect_layout(path: str | os.PathLike) -> str:
    """The name of the first layout in `LAYOUTS` that fits; UserError naming what was looked for where none does."""
    folder = _existing(path)
    for name, layout in LAYOUTS.items():
        if layout.matches(folder):
            return name
    looked_for = "; ".join(f"{name}: {layout.looked_for}" for name, layout in LAYOUTS.items())
    raise UserError(f"no known layout in {folder} (looked for {looked_for}); name one with --layout")


def list_recordings(path: str | os.PathLike, layout: str) -> Iterator[Recording]:
    """The recordings of a corpus, one after the other.

    Raises:
      UserError: no such path, no such layout, or a corpus that is not of this layout.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    source = _existing(path)
    if not LAYOUTS[layout].matches(source):
        raise UserError(f"{source} is not of layout {layout}: looked for {LAYOUTS[layout].looked_for}")
    return LAYOUTS[layout].recordings(source)


def _existing(path: str | os.PathLike) -> pathlib.Path:
    if not os.path.exists(path):
        raise UserError(f"no such file or folder: {os.fspath(path)}")
    return pathlib.Path(path)


def _encodable(text: str) -> str:
    """Without what JSON escapes can hold and UTF-8 cannot: halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _inside(folder: pathlib.Path, path: str | os.PathLike) -> str:
    """`path` relative to `folder`, with forward slashes."""
    return pathlib.PurePath(os.path.relpath(path, folder)).as_posix()


def _lines(path: str | os.PathLike) -> Iterator[str]:
    """Lines that are not blank; UserError where the file is not UTF-8 text."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from (line.rstrip("\n") for line in file if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(f"{os.fspath(path)} is not UTF-8 text ({error.reason}); convert it") from None
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror}") from None
