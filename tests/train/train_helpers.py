"""A tiny model, random rows for it, and a dataset directory of random codes."""

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, KIND_TEXT, NO_TARGET
from valle_jax.data.dataset import DatasetInfo, ShardWriter
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.text.vocabulary import Vocabulary

CODEC = CodecInfo("mel_rvq", 24_000, 75.0, 3, 16, "0" * 16)
VOCABULARY = Vocabulary("test", tuple("abcdefg "))
ROW_LENGTH = 48


def tiny_config(stage="ar", **settings) -> Config:
    """Two layers, 16 wide; `settings` are dotted keys with `__` for the dot."""
    config = Config(
        model=ModelConfig(stage=stage, d_model=16, n_layers=2, n_heads=2, d_ff=32, dropout=0.0, dtype="float32"),
        data=DataConfig(row_length=ROW_LENGTH, block_size=4, nar_prompt_seconds=0.1),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        train=TrainConfig(steps=20, rows=4, log_every=1, checkpoint_every=5, evaluate_every=5, evaluate_rows=8),
    )
    return config.override({key.replace("__", "."): value for key, value in settings.items()})


def sized(config: Config, n_symbols: int = 12) -> Config:
    """As if resolved from a dataset."""
    sizes = {"n_symbols": n_symbols, "codebooks": CODEC.codebooks, "codebook_size": CODEC.codebook_size}
    return config.override({f"model.{name}": size for name, size in sizes.items()})


def random_rows(config: Config, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Packed rows of two utterances each and some padding; rows have different numbers of targets.

    The codes of an AR's group are any: those of one frame.
    """
    rng = np.random.default_rng(seed)
    model, length = config.model, config.data.row_length
    batch = {name: np.zeros((rows, length), np.int32) for name in ("token", "kind", "segment", "position")}
    G = model.codes_per_step
    batch["token"] = np.zeros((rows, length * G), np.int32)
    batch["target"] = np.full((rows, length * G), NO_TARGET, np.int32)
    batch["codes"] = rng.integers(0, model.codebook_size, (rows, length, model.codebooks), dtype=np.int32)
    batch["stage"] = rng.integers(1, model.codebooks, rows, dtype=np.int32)
    for row in range(rows):
        start = 0
        for segment in (1, 2):
            n_text, n_frames = rng.integers(3, 7), rng.integers(6, 16)
            text, audio = slice(start, start + n_text), slice(start + n_text, start + n_text + n_frames)
            token, target = (batch[name][row].reshape(length, G) for name in ("token", "target"))
            token[text, 0] = rng.integers(3, model.n_symbols, n_text)
            batch["kind"][row, text], batch["kind"][row, audio] = KIND_TEXT, KIND_ACOUSTIC
            batch["position"][row, text], batch["position"][row, audio] = np.arange(n_text), G * np.arange(n_frames)
            batch["segment"][row, start : audio.stop] = segment
            codes = batch["codes"][row, audio]
            if model.stage == "ar":
                token[audio] = codes[:, :G]
                target[audio.start - 1 : audio.stop - 1] = codes[:, :G]
                target[audio.stop - 1, 0] = model.codebook_size
            else:
                batch["kind"][row, audio.start : audio.start + 3] = KIND_PROMPT
                target[audio.start + 3 : audio.stop, 0] = codes[3:, batch["stage"][row]]
            start = audio.stop
    if model.stage == "ar":
        del batch["codes"], batch["stage"]
    return batch


def write_dataset(folder, *, utterances: int = 60, seed: int = 0, codec=CODEC, vocabulary=VOCABULARY):
    """A dataset of random codes; every tenth utterance is of each validation split."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    n_frames = n_phonemes = 0
    splits = dict.fromkeys(SPLITS, 0)
    with ShardWriter(folder, 0, 1) as writer:
        for i in range(utterances):
            split = {0: "valid_utterance", 1: "valid_speaker"}.get(i % 10, "train")
            phonemes = rng.integers(3, vocabulary.size, rng.integers(3, 8), dtype=np.int32)
            codes = rng.integers(0, codec.codebook_size, (rng.integers(8, 20), codec.codebooks)).astype(np.uint16)
            speaker = f"speaker{i % 10}"
            writer.write(Utterance(f"u{i}", speaker, "en-us", "text", phonemes, codes, "random"), split)
            n_frames += len(codes)
            n_phonemes += len(phonemes)
            splits[split] += 1
    hours = n_frames / codec.frames_per_second / 3600
    totals = {"utterances": utterances, "frames": n_frames, "phonemes": n_phonemes, "hours": hours, "splits": splits}
    DatasetInfo(codec, vocabulary, totals).save(folder)
    return folder
