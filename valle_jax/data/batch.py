"""What a batch of packed rows is: the contract between the input pipeline, the models and the samplers.

A batch is a dict of int32 arrays; B rows, R tokens per row, Q codebooks, G codes of codebook 1 in one token of the AR
(`model.group_size`; 1 for the NAR). The codes of a token stand side by side: it has the places r G to r G + G - 1.

    token     [B, R G]   phoneme id, in the first place; or for the AR the codes of codebook 1 (begin of audio:
                         codebook_size + 1 in all places); NAR: 0
    kind      [B, R]     one of the KIND_ constants
    segment   [B, R]     1, 2, … per example, 0 for padding; attention stays inside a segment
    position  [B, R]     from 0, counted separately for text (see `text_positions`) and, in frames and so G apart, for
                         acoustic tokens of a segment
    target    [B, R G]   what to predict there, NO_TARGET for nothing; AR: the codes of the next token; behind the last
                         codes end of speech = codebook_size in the first place and nothing in the others
    codes     [B, R, Q]  NAR only: all codebooks of acoustic tokens
    language  [B, R]     only with `model.n_languages`: of phonemes
    stage     [B]        NAR only: the codebook that the row predicts, 1..Q-1 (0-based)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valle_jax.config import ModelConfig

Batch = dict[str, np.ndarray]

KIND_PADDING = 0
KIND_TEXT = 1
KIND_ACOUSTIC = 2  # AR: any acoustic token; NAR: target frames, which show the codebooks below the stage
KIND_PROMPT = 3  # NAR: prompt frames, which show all codebooks and have no target
KIND_STAGE = 4  # NAR with `model.nar_stage=token`: one token behind the frames of a segment, counted on from them

NO_TARGET = -1


def mark_tokens(config: ModelConfig) -> int:
    """Tokens of a segment that are neither text nor frames: the AR's begin of audio, the NAR's stage; 0 or 1."""
    return int(config.prepend_bos if config.stage == "ar" else config.nar_stage == "token")


def per_code(x_BR, codes_BX):
    """What is said of tokens, [B, R], said of their codes, [B, R G]; NumPy or JAX."""
    return x_BR.repeat(codes_BX.shape[1] // x_BR.shape[1], axis=1)


def text_positions(n_phonemes: Sequence[int], n_frames: Sequence[int], config: ModelConfig) -> np.ndarray:
    """Positions int32 [sum of n_phonemes] of the phonemes of a segment's utterances, which follow on each other.

    With `model.text_position_anchor=utterance` the phonemes of each utterance are counted on from the position of its
    first frame, in phonemes of `model.text_position_step` frames. So where a prompt ends is known, however fast it was
    spoken; `n_frames` of the last utterance is not looked at.
    """
    if config.text_position_anchor == "segment":
        return np.arange(sum(n_phonemes), dtype=np.int32)
    before = np.concatenate([[0], np.cumsum(n_frames[: len(n_phonemes) - 1])])
    anchors = np.round(before / config.text_position_step).astype(np.int32)
    return np.concatenate([anchor + np.arange(n) for anchor, n in zip(anchors, n_phonemes, strict=True)])
