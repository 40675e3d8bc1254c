"""What a model that knows only the frequencies of the codes would score: the losses to beat, in nats per target.

    python benchmarks/code_baselines.py DATASET

`uniform` knows the size of the codebook. `unigram` has counted the training split's codes, one added to each count.
`bigram`, of codebook 1 only, also knows the code before, smoothed by Witten and Bell's method. Codebook 1 counts with
the end of speech behind every utterance, as the AR decoder's loss does.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import tyro

from valle_jax.data.dataset import Dataset

SPLITS = ("valid_utterance", "valid_speaker")


def sequences(dataset: Dataset, split: str) -> list[np.ndarray]:
    """Codes [T + 1, Q] of each utterance; the last row is the end of speech, which only codebook 1 uses."""
    end = np.full((1, dataset.info.codec.codebooks), dataset.info.codec.codebook_size)
    return [np.concatenate([dataset.read(i).codes, end]) for i in dataset.indices(split)]


def unigram(codes: list[np.ndarray], size: int) -> np.ndarray:
    """Probabilities [size]; `codes` are the utterances' int [T]."""
    counts = 1.0 + np.bincount(np.concatenate(codes), minlength=size)
    return counts / counts.sum()


def bigram(codes: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
    """Probabilities [size, size] of a code (second axis) behind another; the prior [size] stands in for unseen ones."""
    counts = np.zeros((len(prior), len(prior)))
    for c in codes:
        np.add.at(counts, (c[:-1], c[1:]), 1)
    followers = np.maximum((counts > 0).sum(1, keepdims=True), 1)
    return (counts + followers * prior) / (counts.sum(1, keepdims=True) + followers)


def baselines(dataset: Dataset) -> dict:
    """Losses: `uniform` by stage; `unigram` by codebook and `bigram`, for each validation split."""
    size = dataset.info.codec.codebook_size
    levels = range(dataset.info.codec.codebooks)
    train = sequences(dataset, "train")
    first = [c[:, 0] for c in train]
    after = bigram(first, unigram(first, size + 1))
    frequency = [unigram(first, size + 1)] + [unigram([c[:-1, q] for c in train], size) for q in levels[1:]]
    result: dict = {"uniform": {"ar": math.log(size + 1), "nar": math.log(size)}}
    for split in SPLITS:
        held_out = sequences(dataset, split)
        if held_out:
            codes = [np.concatenate([c[: len(c) - (q > 0), q] for c in held_out]) for q in levels]
            loss = [float(-np.log(p[c]).mean()) for p, c in zip(frequency, codes, strict=True)]
            starts = -np.log(frequency[0][[c[0, 0] for c in held_out]])
            pairs = [-np.log(after[c[:-1, 0], c[1:, 0]]) for c in held_out]
            result[split] = {
                "unigram": {q + 1: round(x, 3) for q, x in enumerate(loss)},
                "unigram_nar": round(float(np.mean(loss[1:])), 3),
                "bigram": round(float(np.concatenate([starts, *pairs]).mean()), 3),
            }
    return result


@dataclasses.dataclass(frozen=True)
class CodeBaselines:
    """Print the losses of models that only count codes, as JSON."""

    dataset: tyro.conf.Positional[str]
    """Dataset directory."""

    def run(self) -> None:
        """Prints one JSON object."""
        print(json.dumps(baselines(Dataset.open(self.dataset)), indent=2))


if __name__ == "__main__":
    tyro.cli(CodeBaselines).run()
