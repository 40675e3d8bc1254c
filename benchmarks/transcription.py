"""`valle transcribe` against the true transcripts of a LibriSpeech folder: word error rate, and what is lost.

    python benchmarks/transcription.py --source ../shared/speech/LibriSpeech/test-other

Utterances of a speaker are joined to one recording, with nothing between them, which is transcribed as a chapter of
an audio book would be; its pieces' words in order are compared with the true ones, so what is rejected counts as
deleted. The same utterances, as the corpus cut them, are read by the same recogniser for comparison.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import tempfile
import time

import numpy as np
import tyro

from data_prep import sources
from data_prep.sources.audio import AudioReader
from data_prep.transcription.command import MANIFEST, Transcribe, transcribe
from data_prep.transcription.segmentation import RATE
from valle_jax.audio import write_audio
from valle_jax.evaluation.bootstrap import bootstrap_ratio
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import get_recogniser, normalise


@dataclasses.dataclass(frozen=True)
class Transcription:
    """Measures a recogniser of `valle transcribe` on true transcripts."""

    source: str
    """A folder of LibriSpeech."""
    recogniser: str = "pocketsphinx"
    """As `valle transcribe` takes it."""
    seconds: float = 40.0
    """Of each speaker: the first utterances that reach it."""
    processes: int = 1
    """Worker processes."""


def measure(options: Transcription) -> None:
    """Prints a line for the pieces and one for the corpus's own utterances."""
    reader = AudioReader(())
    recogniser = get_recogniser(options.recogniser)
    texts: dict[str, list[str]] = {}
    own: list[tuple[int, int]] = []  # wrong and all words of each speaker
    lengths = []
    recordings = sources.list_recordings(options.source, "librispeech")
    with tempfile.TemporaryDirectory() as scratch:
        audio = pathlib.Path(scratch) / "audio"
        audio.mkdir()
        for speaker, members in itertools.groupby(recordings, lambda recording: recording.speaker_id):
            samples: list[np.ndarray] = []
            truth = texts.setdefault(speaker, [])
            wrong = 0
            for recording in members:
                if sum(map(len, samples)) < options.seconds * RATE:
                    samples.append(reader.read(recording, RATE))
                    words = normalise(recording.text)
                    wrong += edit_distance(words, normalise(recogniser.transcribe(samples[-1:], RATE)[0]))
                    truth += words
            own.append((wrong, len(truth)))
            lengths.append(sum(map(len, samples)) / RATE)
            write_audio(audio / f"{speaker}.flac", np.concatenate(samples), RATE)
        out = pathlib.Path(scratch) / "out"
        start = time.monotonic()
        transcribe(Transcribe(str(audio), str(out), recogniser=options.recogniser, processes=options.processes))
        took = time.monotonic() - start
        entries = [json.loads(line) for line in (out / MANIFEST).read_text(encoding="utf-8").splitlines()]
    heard: dict[str, list[str]] = {speaker: [] for speaker in texts}
    for entry in entries:
        heard[entry["speaker"]] += normalise(entry["text"])
    pieces = [(edit_distance(truth, heard[speaker]), len(truth)) for speaker, truth in texts.items()]
    seconds = [entry["end"] - entry["start"] for entry in entries]
    print(f"{sum(lengths) / 60:.1f} min of {len(texts)} speakers, recogniser {recogniser.name}")
    print(f"word error rate, as the corpus cut it: {_rate(own)}")
    print(f"word error rate, as `valle transcribe` cut it: {_rate(pieces)}")
    print(
        f"{len(seconds)} pieces of {min(seconds):.1f} to {max(seconds):.1f} s, median {np.median(seconds):.1f} s, "
        f"{sum(seconds) / sum(lengths):.1%} of the audio; {sum(lengths) / took:.1f} s of audio a second of wall time"
    )


def _rate(counts: list[tuple[int, int]]) -> str:
    """A ratio with its 95 % interval over speakers."""
    wrong, words = (np.array(column, float) for column in zip(*counts, strict=True))
    interval = bootstrap_ratio(wrong, words)
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}] of {words.sum():.0f} words"


if __name__ == "__main__":
    measure(tyro.cli(Transcription))
