"""Corpora of generated sounds, and what is in a dataset directory, to compare two of them."""

import json
import pathlib

import numpy as np

from data_prep.shards import ShardReport
from data_prep.summary import describe_dataset
from valle_jax.audio import write_audio
from valle_jax.codec import CodecInfo
from valle_jax.data.dataset import ShardWriter
from valle_jax.data.schema import Utterance
from valle_jax.text.vocabulary import Vocabulary

CODEC = CodecInfo("mel_rvq", 24_000, 75.0, 2, 1024, "0" * 16)  # of weights that nobody has
SHARDS_OF_TWO = {"shard_utterances": 2, "valid_utterances": 0.1, "valid_speakers": 0.3}
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


def contents(folder):
    """All files of a folder and what they hold."""
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rejections(folder):
    """(utterance id, reason) of each line of rejected.jsonl."""
    lines = (pathlib.Path(folder) / "rejected.jsonl").read_text().splitlines()
    return [(line["utterance_id"], line["reason"]) for line in map(json.loads, lines)]


def utterance(name: str, codes: np.ndarray, text: str = "hello", speaker: str = "anna", folder: str = "a") -> Utterance:
    """An utterance whose phonemes are its text."""
    phonemes = Vocabulary.default().encode(text)
    return Utterance(name, speaker, "en-us", text, phonemes, codes.astype(np.uint16), f"{folder}/{name}.wav")


def write_dataset(folder: pathlib.Path, utterances, codec: CodecInfo = CODEC, **options) -> pathlib.Path:
    """A dataset of one shard, all of it train."""
    folder.mkdir(parents=True)
    total = ShardReport()
    with ShardWriter(folder, 0, 1) as writer:
        for u in utterances:
            writer.write(u, "train")
            total.utterances["train"] += 1
            total.frames["train"] += len(u.codes)
            total.phonemes += len(u.phonemes)
            total.speaker_frames[u.speaker_id] += len(u.codes)
    describe_dataset(
        folder, [len(utterances)], total, codec, Vocabulary.default(), options, {"valle-jax": "1"}, aligned=False
    )
    return folder
