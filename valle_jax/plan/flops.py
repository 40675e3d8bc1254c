"""Floating-point operations of a training step, counted from the configuration: 2 for a multiplication and addition.

Counted are the products of matrices, which is where an accelerator's peak is defined. The rest (norms, softmax,
dropout, optimizer) shows in the memory traffic.
"""

from __future__ import annotations

import dataclasses

from valle_jax.config import Config
from valle_jax.model import Decoder
from valle_jax.model.splash_attention import _block
from valle_jax.train.metrics import model_flops

# Back ends that never hold all scores compute them once more in their backward pass: five products for the two of the
# forward pass, where plain array operations take four.
_FLASH = ("splash", "cudnn", "blocked", "pallas_gpu")


@dataclasses.dataclass(frozen=True)
class Speech:
    """The utterances of which rows are made; as made, LibriSpeech's.

    Attributes:
      seconds: length of an utterance; that of all is taken to be the same.
      frames_per_second: of the codec.
      phonemes_per_second: spoken.
      fill: share of a row that is no padding.
      frames_per_token: of the AR, `model.group_size`.
    """

    seconds: float = 12.3
    frames_per_second: float = 75.0
    phonemes_per_second: float = 14.0
    fill: float = 0.97
    frames_per_token: int = 1

    @property
    def segment_tokens(self) -> float:
        """Of one utterance: frames or groups of them, phonemes and the end of the text."""
        return self.seconds * (self.frames_per_second / self.frames_per_token + self.phonemes_per_second) + 1

    @property
    def frame_share(self) -> float:
        """Acoustic frames among the tokens of a row, padding counted as a token."""
        return self.fill * self.seconds * self.frames_per_second / self.segment_tokens


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of all chips together in one step.

    Attributes:
      forward: products of the forward pass, attention left out.
      backward: of the backward pass, likewise.
      attention: both passes of attention, as the back end computes it: with what is masked but not skipped.
      recompute: what the backward pass computes again (`model.remat`, `train.loss_chunk`).
      model: what `mfu` of `metrics.jsonl` counts: forward and backward pass of the matrices on the row's tokens.
      attention_useful: both passes of attention over the keys that the queries see.
    """

    forward: float
    backward: float
    attention: float
    recompute: float
    model: float
    attention_useful: float

    @property
    def computed(self) -> float:
        """All that the chips compute."""
        return self.forward + self.backward + self.attention + self.recompute


def train_flops(config: Config, decoder: Decoder, attention: str, speech: Speech, *, tile: int) -> Flops:
    """FLOPs of one optimizer step.

    Args:
      config: resolved.
      decoder: of `config.model`.
      attention: name of the back end.
      speech: what the rows hold.
      tile: of what the vocabulary is made a multiple, see `valle_jax.model.head.vocabulary_tile`.
    """
    model, length = config.model, config.data.row_length
    tokens = config.train.rows * length
    blocks = decoder.abstract_params["transformer"]["blocks"]
    first, last = blocks["mlp"]["w_in"].size, blocks["mlp"]["w_out"].size
    dense = 2.0 * tokens * (blocks["w_qkv"].size + blocks["w_o"].size + first + last)
    groups = 2.0 * tokens * sum(leaf.size for leaf in decoder.abstract_params.get("groups", {}).values())
    outputs = model.codebook_size + (model.stage == "ar")
    head = 2.0 * tokens * model.codes_per_step * model.d_model * -(-outputs // tile) * tile
    per_key = 4.0 * tokens * model.d_model * model.n_layers  # scores and their use, all heads
    segment = min(speech.segment_tokens, length)
    seen = segment if model.stage == "nar" else (segment + 1) / 2
    scores = per_key * _computed_keys(model.stage, attention, length, seen)
    recompute = {
        "none": 0.0,
        # Products of a batch, as attention's, are not kept; nor is the first one of the feed-forward layer, which
        # `widen` hides from the policy behind a derivative of its own.
        "dots": scores + 2.0 * tokens * first,
        "full": dense + scores - 2.0 * tokens * last,  # what a layer ends with, its backward pass does not ask for
    }[model.remat]
    return Flops(
        forward=dense + groups + head,
        backward=2 * (dense + groups + head),
        attention=scores * (3.5 if attention in _FLASH else 3.0),
        recompute=recompute + (head if config.train.loss_chunk else 0.0),
        model=model_flops(decoder, tokens),
        attention_useful=3 * speech.fill * per_key * seen,
    )


def _computed_keys(stage: str, attention: str, length: int, seen: float) -> float:
    """Keys per query whose scores a back end computes."""
    if attention == "splash" and stage == "ar":  # blocks above the diagonal are skipped; other segments are not
        blocks = length // _block(length)
        return length * (blocks + 1) / (2 * blocks)
    if attention == "blocked":  # about the segment, in blocks
        return min(length, seen + 128)
    return length
