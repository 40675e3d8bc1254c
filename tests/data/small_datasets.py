"""Small datasets of random numbers, for the tests of this folder."""

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.data.dataset import Dataset, DatasetInfo, ShardWriter
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary("test", ("a", "b", " "))  # ids 3, 4, 5
CODEC = CodecInfo("test", 1000, 10.0, 3, 20, "0" * 16)  # 10 frames/s, 3 codebooks of 20


def utterance(i: int, n_phonemes: int, n_frames: int, speaker: str, codec: CodecInfo = CODEC) -> Utterance:
    """Utterance number `i` of random codes."""
    random = np.random.default_rng(i)
    return Utterance(
        utterance_id=f"utterance-{i}",
        speaker_id=speaker,
        language="en-us",
        text=f"text ü {i}",
        phonemes=random.integers(3, 5, n_phonemes, dtype=np.int32),
        codes=random.integers(0, codec.codebook_size, (n_frames, codec.codebooks), dtype=np.uint16),
        source=f"folder/{i}.wav",
    )


def equal(a: Utterance, b: Utterance) -> bool:
    """Whether two utterances are the same, dtypes included."""
    strings = ("utterance_id", "speaker_id", "language", "text", "source")
    return (
        all(getattr(a, name) == getattr(b, name) for name in strings)
        and np.array_equal(a.phonemes, b.phonemes)
        and np.array_equal(a.codes, b.codes)
        and (a.phonemes.dtype, a.codes.dtype) == (b.phonemes.dtype, b.codes.dtype)
    )


def write(folder, utterances, splits=None, *, n_shards=2, codec=CODEC, vocabulary=VOCABULARY) -> Dataset:
    """Writes utterances in order and opens the dataset; all are of split train unless `splits` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = splits or ["train"] * len(utterances)
    for shard, members in enumerate(np.array_split(np.arange(len(utterances)), n_shards)):
        with ShardWriter(folder, shard, n_shards) as writer:
            for i in members:
                writer.write(utterances[i], splits[i])
    counts = {split: splits.count(split) for split in SPLITS}
    DatasetInfo(codec, vocabulary, {"utterances": len(utterances), "splits": counts}).save(folder)
    return Dataset.open(folder)


def random_utterances(n: int, seed: int = 0, n_speakers: int = 4, first: int = 0, codec: CodecInfo = CODEC):
    """Utterances of 1 to 40 frames; speakers alternate in runs."""
    random = np.random.default_rng(seed)
    speakers = np.repeat(random.integers(0, n_speakers, n), random.integers(1, 6, n))[:n]
    return [
        utterance(first + i, int(random.integers(1, 9)), int(random.integers(1, 41)), f"speaker-{speakers[i]}", codec)
        for i in range(n)
    ]
