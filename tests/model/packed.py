"""Packed rows made by hand, for tests of the model that must not depend on the input pipeline."""

import numpy as np

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, KIND_STAGE, KIND_TEXT, mark_tokens
from valle_jax.text.vocabulary import EOS_ID

SIZES = {"n_symbols": 40, "codebooks": 4, "codebook_size": 60}


def tiny_config(stage: str, **changes) -> ModelConfig:
    """A decoder small enough to compile in a second."""
    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64, "dropout": 0.0, **SIZES}
    return ModelConfig(stage=stage, **(sizes | changes))


def utterance(rng: np.random.Generator, phonemes: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Random phoneme ids [S] and codes [T, Q]."""
    codes = rng.integers(0, SIZES["codebook_size"], (frames, SIZES["codebooks"]))
    return rng.integers(3, SIZES["n_symbols"], phonemes), codes


def pack(utterances, length: int, config: ModelConfig, *, stage: int = 1, prompt_frames: int = 0) -> dict:
    """One row [1, length] that holds the utterances one behind the other, without first frames that fill no group."""
    G = config.codes_per_step
    batch = {name: np.zeros((1, length), np.int32) for name in ("token", "kind", "segment", "position")}
    batch["token"], batch["target"] = np.zeros((1, length * G), np.int32), np.full((1, length * G), -1, np.int32)
    token, target = batch["token"].reshape(length, G), batch["target"].reshape(length, G)
    batch["codes"] = np.zeros((1, length, config.codebooks), np.int32)
    batch["stage"] = np.full(1, stage, np.int32)
    at = 0
    for segment, (phonemes, codes) in enumerate(utterances, start=1):
        codes = codes[len(codes) % G :]
        first = codes[:, 0]
        if config.stage == "ar" and config.prepend_bos:
            first = np.concatenate([[config.codebook_size + 1] * G, first])
        text, acoustic = len(phonemes) + 1, len(first) // G
        begin, end = at + text, at + text + acoustic
        token[at:begin, 0] = [*phonemes, EOS_ID]
        batch["kind"][0, at:begin] = KIND_TEXT
        batch["kind"][0, begin:end] = KIND_ACOUSTIC
        batch["segment"][0, at:end] = segment
        batch["position"][0, at:begin] = np.arange(text)
        batch["position"][0, begin:end] = G * np.arange(acoustic)
        if config.stage == "ar":
            token[begin:end] = first.reshape(-1, G)
            target[end - 1 - len(codes) // G : end - 1] = codes[:, 0].reshape(-1, G)
            target[end - 1, 0] = config.codebook_size
        else:
            batch["codes"][0, begin:end] = codes
            batch["kind"][0, begin : begin + prompt_frames] = KIND_PROMPT
            batch["target"][0, begin + prompt_frames : end] = codes[prompt_frames:, stage]
            if mark_tokens(config):
                for name, value in (("kind", KIND_STAGE), ("segment", segment), ("position", acoustic)):
                    batch[name][0, end] = value
                end += 1
        at = end
    assert at <= length, "the utterances do not fit into the row"
    return batch


def mean_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean cross entropy in nats over the positions with a target."""
    logits = np.asarray(logits, np.float64)
    log_sum = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    picked = np.take_along_axis(logits, np.maximum(target, 0)[..., None], -1)[..., 0]
    return float((log_sum - picked)[target >= 0].mean())
