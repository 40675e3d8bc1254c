"""The configuration of a run: frozen dataclasses, one comment a field, validated when made, round-tripped through JSON.

`--set model.n_layers=6` on the command line is `config.override({"model.n_layers": "6"})` here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from valle_jax.errors import UserError

Stage = Literal["ar", "nar"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_choices(config: Any) -> None:
    """Every `Literal` field must hold one of its values."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal and getattr(config, name) not in typing.get_args(hint):
            options = ", ".join(map(str, typing.get_args(hint)))
            raise UserError(f"{name}={getattr(config, name)!r} is not one of: {options}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One decoder. The stage decides which of the AR and NAR switches matter."""

    stage: Stage = "ar"  # ar: codebook 1, causal; nar: codebooks 2..Q, all positions see all
    d_model: int = 1024  # width
    n_layers: int = 12  # transformer blocks
    n_heads: int = 16  # attention heads
    d_ff: int = 4096  # inner width of the feed-forward layer
    dropout: float = 0.1  # on the two residual branches and on the embeddings
    norm_position: Literal["pre", "post"] = "pre"  # LayerNorm before the branch, or after the residual sum
    activation: Literal["gelu", "relu", "swiglu"] = "gelu"  # of the feed-forward layer
    text_attention: Literal["causal", "bidirectional"] = "causal"  # AR only: what a phoneme sees of the phonemes
    group_size: int = 1  # AR only: codes of codebook 1 in one step (VALL-E 2: 1, 2, 4, 8)
    ar_tied: bool = True  # AR only: output projection = acoustic embedding
    nar_tying: Literal["same", "next", "none"] = "same"  # NAR only: head of codebook k = embedding of codebook k, k+1
    nar_stage: Literal["adaln", "token"] = "adaln"  # NAR only: the stage modulates every norm, or is a token (VALL-E 2)
    nar_context: Literal["prompt", "text", "none"] = "prompt"  # NAR only: sees phonemes and prompt, phonemes, neither
    prepend_bos: bool = False  # AR only: a begin-of-audio token between the phonemes and the codes
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"  # added to the embeddings, or turning queries and keys
    position_scale: Literal["fixed", "learned"] = "fixed"  # factor on the sinusoids: fixed, or learned for each kind
    position_amplitude: float = 1.0  # that factor, or where it starts
    text_position_step: float = 1.0  # between two phonemes; frames per phoneme makes the alignment a diagonal
    text_position_anchor: Literal["segment", "utterance"] = "segment"  # phonemes count from 0, or from their frames
    query_key_init: Literal["independent", "shared"] = "independent"  # shared: keys start as projected like queries
    code_init: Literal["random", "codec"] = "random"  # NAR only; codec: embeddings start as its vectors
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the computation; auto: bfloat16 on accelerators
    remat: Literal["none", "dots", "full"] = "none"  # what the backward pass recomputes: nothing, all but dots, all
    attention: Literal["auto", "xla", "blocked", "splash", "cudnn", "pallas_gpu"] = "auto"  # auto: the first that can
    n_symbols: int = 0  # entries of the text vocabulary; 0: taken from the dataset
    n_languages: int = 0  # languages whose embedding is added to the phonemes' (imported models only); 0: none
    codebooks: int = 0  # residual levels Q; 0: taken from the dataset
    codebook_size: int = 0  # entries per codebook; 0: taken from the dataset

    def __post_init__(self):
        _check_choices(self)
        for name in ("d_model", "n_layers", "n_heads", "d_ff", "group_size"):
            _require(getattr(self, name) > 0, f"model.{name} must be positive, not {getattr(self, name)}")
        _require(
            self.d_model % self.n_heads == 0,
            f"model.d_model={self.d_model} is not divisible by model.n_heads={self.n_heads}",
        )
        _require(self.d_model % 2 == 0, f"model.d_model={self.d_model} must be even (sinusoids come in pairs)")
        for name in ("position_amplitude", "text_position_step"):
            _require(getattr(self, name) > 0, f"model.{name}={getattr(self, name)} must be positive")
        _require(0 <= self.dropout < 1, f"model.dropout={self.dropout} must be in [0, 1)")
        if self.positions == "rotary":
            width = self.d_model // self.n_heads
            _require(width % 2 == 0, f"model.positions=rotary turns pairs of channels, but heads are {width} wide")
            _require(
                self.position_scale == "fixed" and self.position_amplitude == 1,
                "model.position_scale and model.position_amplitude are of sinusoids, not of model.positions=rotary",
            )

    @property
    def codes_per_step(self) -> int:
        """Frames that one acoustic token stands for: the AR's G; the NAR sees every frame."""
        return self.group_size if self.stage == "ar" else 1


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How utterances become packed rows (the data's half of a batch; the batch size is in TrainConfig)."""

    row_length: int = 2560  # tokens per packed row; 97 % fill at LibriSpeech's lengths needs 2,560 or more
    join_utterances: int = 1  # at most this many utterances of one speaker are joined to one training example
    nar_prompt: Literal["prefix", "segment", "none"] = "prefix"  # NAR: acoustic prompt in training
    nar_prompt_seconds: float = 3.0  # NAR: longest prompt; a prefix is drawn from [0, this], a segment has this length
    nar_stage_per: Literal["row", "batch"] = "row"  # NAR: what shares one randomly drawn stage
    share: float = 1.0  # of the training utterances, always the same ones; a smaller share is part of a larger one
    crop_min_seconds: float = 0.0  # utterances that are longer than a length drawn between this ...
    crop_max_seconds: float = 0.0  # ... and this are cropped to it at words (P1: 10 to 20 s); 0: they stay whole
    block_size: int = 256  # contiguous records that move together in the epoch's permutation
    workers: int = 0  # reader processes; 0: threads of this process

    def __post_init__(self):
        _check_choices(self)
        for name in ("row_length", "join_utterances", "block_size"):
            _require(getattr(self, name) > 0, f"data.{name} must be positive, not {getattr(self, name)}")
        crops = self.crop_min_seconds, self.crop_max_seconds
        _require(
            crops == (0, 0) or 1 <= crops[0] <= crops[1],
            f"data.crop_min_seconds={crops[0]} must be at least 1 and at most data.crop_max_seconds={crops[1]}, "
            "or both 0",
        )
        _require(0 < self.share <= 1, f"data.share={self.share} must be in (0, 1]")
        _require(
            self.nar_prompt_seconds >= 0, f"data.nar_prompt_seconds={self.nar_prompt_seconds} must not be negative"
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and linear decay to zero (P1, training)."""

    learning_rate: float = 5e-4  # peak
    warmup_steps: int = 32_000  # linear warm-up from 0
    b1: float = 0.9  # decay of the first moment
    b2: float = 0.98  # decay of the second moment
    eps: float = 1e-8  # added to the root of the second moment
    weight_decay: float = 0.01  # decoupled; not on biases, norms and scalars
    clip_norm: float = 1.0  # global gradient norm; 0: no clipping
    ema_decay: float = 0.0  # of the parameters' moving average that evaluation and export use; 0: none

    def __post_init__(self):
        _require(self.learning_rate > 0, f"optimizer.learning_rate={self.learning_rate} must be positive")
        _require(0 <= self.ema_decay < 1, f"optimizer.ema_decay={self.ema_decay} must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    steps: int = 800_000  # optimizer steps; also where the learning rate reaches zero
    rows: int = 0  # packed rows per global batch; 0: from tokens_per_batch
    tokens_per_batch: int = 96_000  # acoustic frames per global batch, used where rows is 0 (P1: 16 GPUs x 6k)
    accumulate: int = 1  # microbatches per step, each of rows / accumulate rows
    loss_chunk: int = 0  # tokens of each row whose logits exist at once in the loss; 0: all
    seed: int = 0  # of initialisation, dropout and data order
    code_noise: float = 0.0  # share of input codes replaced by random ones (makes the AR forgive its own mistakes)
    text_dropout: float = 0.0  # AR: share of examples whose phonemes are hidden; needed for guided sampling
    log_every: int = 50  # steps between lines of metrics.jsonl
    evaluate_every: int = 2_000  # steps between passes over the validation rows; 0: only at the end
    evaluate_rows: int = 64  # validation rows of each split per pass
    checkpoint_every: int = 2_000  # steps between checkpoints
    keep_checkpoints: int = 3  # newest checkpoints kept, besides the best by validation loss
    sample_every: int = 0  # steps between synthesised audio in TensorBoard; 0: none
    hang_seconds: int = 1_800  # without progress until a run reports where it hangs and ends; 0: never
    max_nonfinite: int = 10  # steps in a row with a non-finite loss or gradient after which training stops

    def __post_init__(self):
        for name in ("steps", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints", "max_nonfinite"):
            _require(getattr(self, name) > 0, f"train.{name} must be positive, not {getattr(self, name)}")
        _require(self.rows > 0 or self.tokens_per_batch > 0, "one of train.rows and train.tokens_per_batch must be set")
        _require(
            self.rows % self.accumulate == 0,
            f"train.rows={self.rows} is not divisible by train.accumulate={self.accumulate}",
        )
        _require(self.loss_chunk >= 0, f"train.loss_chunk={self.loss_chunk} must not be negative")
        for name in ("code_noise", "text_dropout"):
            _require(0 <= getattr(self, name) < 1, f"train.{name}={getattr(self, name)} must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run, besides the dataset and the mesh."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    def override(self, values: Mapping[str, Any]) -> Config:
        """A copy with dotted keys replaced; strings are converted to the field's type.

        Raises:
          UserError: unknown key (the nearest known one is named) or a value of the wrong type.
        """
        changes: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            known = self.keys()
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
                raise UserError(f"unknown configuration key {key!r}; did you mean {near[0]!r}?")
            hint = typing.get_type_hints(type(getattr(self, section)))[name]
            changes.setdefault(section, {})[name] = _convert(key, value, hint)
        return dataclasses.replace(
            self, **{section: dataclasses.replace(getattr(self, section), **new) for section, new in changes.items()}
        )

    @classmethod
    def keys(cls) -> list[str]:
        """All dotted keys."""
        sections = typing.get_type_hints(cls)
        return [f"{section}.{f.name}" for section, kind in sections.items() for f in dataclasses.fields(kind)]

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Mapping[str, Any]]) -> Config:
        """The inverse of `to_json`; unknown keys are errors, missing ones get their defaults."""
        return cls().override(
            {f"{section}.{name}": v for section, fields in value.items() for name, v in fields.items()}
        )


def _convert(key: str, value: Any, hint: Any) -> Any:
    """`value`, perhaps a string from the command line, as the type that `hint` names."""
    if typing.get_origin(hint) is Literal:
        return value  # checked by the dataclass
    assert not isinstance(hint, types.UnionType), f"{key}: union types are not used in the configuration"
    try:
        if hint is bool and isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        if hint is int and isinstance(value, str):
            return int(value.replace("_", ""))
        if isinstance(value, bool) != (hint is bool) or (hint is int and isinstance(value, float)):
            raise ValueError
        return hint(value)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{key}={value!r} is not a {hint.__name__}") from None


def parse_settings(settings: typing.Iterable[str]) -> dict[str, str]:
    """`["model.dropout=0", …]` as a dict; UserError where there is no `=`."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        _require(bool(equals), f"--set {setting!r} is not of the form key=value")
        pairs[key.strip()] = value.strip()
    return pairs


def save(config: Config, path) -> None:
    """Writes the configuration as JSON."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config.to_json(), file, indent=2)
        file.write("\n")
