"""LJSpeech, and other corpora of one speaker in its layout."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.sources.corpus import Corpus
from data_prep.sources.recording import Recording


def ljspeech(corpus: Corpus) -> Iterator[Recording]:
    """LJSpeech: metadata.csv of ID|RAW TEXT|NORMALISED TEXT and wavs/ID.wav; one speaker, named like the folder.

    Layout: README of LJSpeech-1.1, https://keithito.com/LJ-Speech-Dataset.
    """
    for line in corpus.lines("metadata.csv"):
        utterance_id, *texts = line.split("|")
        name = f"wavs/{utterance_id}.wav"
        yield Recording(
            utterance_id=utterance_id,
            speaker_id=corpus.name,
            text=next((text.strip() for text in reversed(texts) if text.strip()), ""),
            audio_path=corpus.address(name),
            source=name,
        )
