"""A small corpus of generated sounds, with faults where a test plants them."""

import json
import pathlib

import numpy as np
import pytest

from data_prep.prepare import Prepare, prepare
from valle_jax.audio import write_audio

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero")


def sound(seconds: float, seed: int, sample_rate: int = 16_000) -> np.ndarray:
    """A buzz of a voice's pitch in some noise: enough for codes that differ, not for words."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch = 100 + 100 * random.random() + 20 * np.sin(2 * np.pi * time)
    phase = np.cumsum(2 * np.pi * pitch / sample_rate)
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    return 0.1 * voice + 0.01 * random.standard_normal(len(time))


def make_corpus(folder: pathlib.Path, n_utterances: int, n_speakers: int = 3) -> pathlib.Path:
    """A jsonl corpus of sounds of 0.6 to 1.6 s; returns the manifest."""
    folder.mkdir(parents=True)
    lines = []
    for i in range(n_utterances):
        write_audio(folder / f"{i:03d}.wav", sound(0.6 + i % 6 * 0.2, seed=i), 16_000)
        text = f"{WORDS[i % 10]} {WORDS[i * 7 % 10]}"
        lines.append({"audio": f"{i:03d}.wav", "text": text, "speaker": f"s{i % n_speakers}"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pathlib.Path:
    """The manifest of 30 utterances of 3 speakers."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "sounds", 30)


SHARDS_OF_TWO = {"shard_utterances": 2, "valid_utterances": 0.1, "valid_speakers": 0.3}


@pytest.fixture(scope="session")
def unbroken(corpus, tmp_path_factory) -> pathlib.Path:
    """The corpus prepared at one go by one process, with the options SHARDS_OF_TWO."""
    pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
    out = tmp_path_factory.mktemp("prepared") / "unbroken"
    prepare(Prepare(source=str(corpus), out=str(out), processes=1, **SHARDS_OF_TWO), progress=False)
    return out
