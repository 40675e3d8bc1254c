"""Folders of audio, with nothing said about it but where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator

from data_prep.sources.corpus import Corpus, is_audio, joined
from data_prep.sources.recording import Recording


def has_audio(corpus: Corpus) -> bool:
    """Whether there is an audio file at any depth."""
    return not corpus.file and any(map(is_audio, (name for _, names in corpus.walk() for name in names)))


def folders(corpus: Corpus) -> Iterator[Recording]:
    """Audio files at any depth, without text; their speaker is the topmost folder that they lie in, else the file."""
    for folder, names in corpus.walk():
        for name in filter(is_audio, names):
            stem = os.path.splitext(name)[0]
            yield Recording(
                utterance_id=joined(folder, stem),
                speaker_id=folder.partition("/")[0] or stem,
                text="",
                audio_path=corpus.address(joined(folder, name)),
                source=joined(folder, name),
            )
