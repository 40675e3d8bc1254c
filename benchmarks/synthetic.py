"""Synthetic datasets of utterances as long as LibriSpeech's, for the benchmarks."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.data.dataset import DatasetInfo, ShardWriter
from valle_jax.data.schema import Utterance
from valle_jax.data.shard import index_name, shard_name
from valle_jax.text.vocabulary import Vocabulary

SYMBOLS_PER_SECOND = 14
"""Phonemes and stress marks."""
CODEC = CodecInfo("mel_rvq", 24_000, 75.0, 8, 1024, "0" * 16)


def utterance_seconds(entries: int, random: np.random.Generator) -> np.ndarray:
    """Durations like train-clean-100's: most of 12 to 16.5 s, a tail of short ones, 12.2 s on average, 17 s at most."""
    is_long = random.random(entries) < 0.75
    return np.where(is_long, random.triangular(11, 15, 17, entries), random.uniform(1.5, 11.5, entries))


def write_dataset(folder: pathlib.Path, entries: int, shard_utterances: int, seed: int = 0) -> int:
    """Writes a dataset of about so many utterances; returns how many: whole shards.

    One shard of random codes is written; the others are further names of its files.
    """
    random = np.random.default_rng(seed)
    vocabulary = Vocabulary.default()
    n_shards = entries // shard_utterances
    with ShardWriter(folder, 0, n_shards) as writer:
        for i, seconds in enumerate(utterance_seconds(shard_utterances, random)):
            phonemes = random.integers(3, vocabulary.size, int(SYMBOLS_PER_SECOND * seconds), dtype=np.int32)
            shape = int(CODEC.frames_per_second * seconds), CODEC.codebooks
            codes = random.integers(0, CODEC.codebook_size, shape, dtype=np.uint16)
            writer.write(Utterance(f"u{i}", f"s{i // 100}", "en-us", "text", phonemes, codes, "random"), "train")
    for shard in range(1, n_shards):
        for name in (shard_name, index_name):
            os.link(pathlib.Path(folder, name(0, n_shards)), pathlib.Path(folder, name(shard, n_shards)))
    DatasetInfo(CODEC, vocabulary, {"utterances": n_shards * shard_utterances}).save(folder)
    return n_shards * shard_utterances
