"""Manifests of Lhotse: cuts (as Libriheavy has them), or recordings with supervisions (as GigaSpeech's recipe does)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from data_prep.sources.corpus import Corpus
from data_prep.sources.jsonl import encodable, json_lines
from data_prep.sources.recording import Recording, espeak_language, part
from valle_jax.errors import UserError
from valle_jax.storage import is_remote

# GigaSpeech, section "Text": punctuation is written as tags, and audio without speech has nothing but a tag.
_PUNCTUATION = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}


def is_lhotse(corpus: Corpus) -> bool:
    """Whether there is one manifest of cuts, or one of recordings and one of supervisions."""
    return _manifests(corpus) is not None


def lhotse(corpus: Corpus) -> Iterator[Recording]:
    """Lhotse: *cuts*.jsonl.gz, or *recordings*.jsonl.gz and *supervisions*.jsonl.gz; each supervision is an utterance.

    Format: https://lhotse.readthedocs.io/en/latest/cuts.html and corpus.html; Libriheavy's texts, of which the first
    has case and punctuation, are in `custom` (https://github.com/k2-fsa/libriheavy). Paths of audio that are not
    absolute begin at the folder of the manifest, or at the first folder above it at which the first recording is found.
    Where no speaker is named (GigaSpeech), the recording stands for one.

    Raises:
      UserError: naming the entry that has not the fields of a cut, recording or supervision, or no audio file.
    """
    manifests = _manifests(corpus)
    assert manifests is not None
    resolve = _Resolver(corpus)
    if len(manifests) == 1:
        (name,) = manifests
        for number, cut in enumerate(json_lines(corpus, name), start=1):
            with _entry(corpus, name, number):
                yield from _of_cut(cut, resolve)
        return
    recordings = {}
    for number, recording in enumerate(json_lines(corpus, manifests[0]), start=1):
        with _entry(corpus, manifests[0], number):
            recordings[recording["id"]] = recording
    for number, supervision in enumerate(json_lines(corpus, manifests[1]), start=1):
        with _entry(corpus, manifests[1], number):
            recording = recordings[supervision["recording_id"]]
            yield _utterance(supervision["id"], supervision, recording, 0.0, resolve)


class _Resolver:
    """Where audio files of a manifest are."""

    def __init__(self, corpus: Corpus):
        self._corpus = corpus
        self._root: str | None = None

    def __call__(self, path: str) -> str:
        if is_remote(path) or os.path.isabs(path) or is_remote(self._corpus.path):
            return path if is_remote(path) or os.path.isabs(path) else self._corpus.address(path)
        if self._root is None:
            folder = os.path.abspath(self._corpus.path)
            above = [folder]
            while os.path.dirname(above[-1]) != above[-1]:
                above.append(os.path.dirname(above[-1]))
            self._root = next((root for root in above if os.path.exists(os.path.join(root, path))), folder)
        return os.path.join(self._root, path)


@contextlib.contextmanager
def _entry(corpus: Corpus, name: str, number: int) -> Iterator[None]:
    """Turns what is missing in an entry into one line that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{corpus.address(name)}: entry {number} is not as Lhotse writes it: {detail}") from None


def _of_cut(cut: dict, resolve: _Resolver) -> Iterator[Recording]:
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut"):
        raise ValueError(f"a {cut['type']} is not a part of one recording")
    start, duration = float(cut["start"]), float(cut["duration"])
    supervisions = cut.get("supervisions") or [{"start": 0.0, "duration": duration}]
    for number, supervision in enumerate(supervisions):
        name = cut["id"] if len(supervisions) == 1 else f"{cut['id']}-{number}"
        yield _utterance(name, supervision, cut["recording"], start, resolve)


def _utterance(name: str, supervision: dict, recording: dict, offset: float, resolve: _Resolver) -> Recording:
    """A supervision, whose times count from `offset` (seconds) in the recording."""
    sources = [source for source in recording["sources"] if source["type"] in ("file", "url")]
    if len(sources) != 1:
        raise ValueError(f"recording {recording['id']!r} is not in one file or url")
    path = sources[0]["source"]
    start = max(offset + float(supervision["start"]), 0.0)
    end = start + float(supervision["duration"])
    whole = start < 1e-3 and abs(end - float(recording["duration"])) < 1e-3
    speaker = supervision.get("speaker") or "N/A"
    return Recording(
        utterance_id=encodable(str(name)),
        speaker_id=encodable(str(recording["id"] if speaker == "N/A" else speaker)),
        text=_text(supervision),
        audio_path=resolve(path),
        source=path if whole else part(path, start, end),
        language=espeak_language(supervision.get("language")),
        start_seconds=None if whole else start,
        end_seconds=None if whole else end,
    )


def _text(supervision: dict) -> str:
    texts = (supervision.get("custom") or {}).get("texts") or [supervision.get("text") or ""]
    text = encodable(texts[0])
    for tag, mark in _PUNCTUATION.items():
        text = text.replace(f" {tag}", mark)
    return re.sub(r"<(SIL|MUSIC|NOISE|OTHER)>", "", text).strip()


def _manifests(corpus: Corpus) -> list[str] | None:
    """The manifest of cuts; or those of recordings and supervisions; or None: there are none, or too many."""
    names = corpus.matching(".jsonl.gz")
    cuts, recordings, supervisions = (
        [n for n in names if kind in n] for kind in ("cuts", "recordings", "supervisions")
    )
    if corpus.file:
        return names if not recordings and not supervisions and names else None
    if cuts:
        return cuts if len(cuts) == 1 else None
    return recordings + supervisions if len(recordings) == len(supervisions) == 1 else None
