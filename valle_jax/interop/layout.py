"""The PyTorch layout of lifeiteng/vall-e and of Plachtaa/VALL-E-X, and what each tensor is here.

Both name their tensors alike; VALL-E-X adds a begin-of-audio token and language embeddings. Tables of embeddings are
multiplied by sqrt(D) at our input, so they are divided by it here; output heads come as they are, each with weights of
its own, even where the original tied them to embeddings.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from einops import EinopsError, rearrange

from valle_jax.config import ModelConfig, Stage
from valle_jax.inference.model_dir import unflatten
from valle_jax.interop.tensors import Tensors
from valle_jax.model import Params

Layout = Literal["vallex", "lifeiteng"]

TEXT_ROWS = 512  # of lifeiteng/vall-e's text embedding, whatever the symbols
HEAD_WIDTH = 64  # of published checkpoints, whose tensors do not tell
# (name of the tensor, our parameters, how its axes become ours); two parameters share a tensor's first axis
_BLOCK = (
    ("self_attn.in_proj_weight", ("w_qkv",), "(c n h) d -> d c n h"),
    ("self_attn.in_proj_bias", ("b_qkv",), "(c n h) -> c n h"),
    ("self_attn.out_proj.weight", ("w_o",), "d (n h) -> n h d"),
    ("self_attn.out_proj.bias", ("b_o",), "d -> d"),
    ("linear1.weight", ("mlp.w_in",), "f d -> d 1 f"),
    ("linear1.bias", ("mlp.b_in",), "f -> 1 f"),
    ("linear2.weight", ("mlp.w_out",), "d f -> f d"),
    ("linear2.bias", ("mlp.b_out",), "d -> d"),
)
_NORM = (("weight", ("scale",), "d -> d"), ("bias", ("bias",), "d -> d"))
_ADAPTIVE_NORM = (
    ("norm.weight", ("scale",), "d -> d"),
    ("norm.bias", ("bias",), "d -> d"),
    ("project_layer.weight", ("modulation",), "(c e) d -> d c e"),
    ("project_layer.bias", ("modulation_scale", "modulation_bias"), "(c e) -> c e"),
)


@dataclasses.dataclass(frozen=True)
class Imported:
    """Both decoders of a checkpoint.

    Attributes:
      layout: which of the two it is.
      config_ar, config_nar: with all sizes.
      params_ar, params_nar: nested dicts of float32 arrays.
      tied: whether the NAR's heads were tied to the embeddings of the codebooks behind them.
    """

    layout: Layout
    config_ar: ModelConfig
    params_ar: Params
    config_nar: ModelConfig
    params_nar: Params
    tied: bool


def convert(state: dict[str, np.ndarray], layout: Layout | None = None, n_heads: int | None = None) -> Imported:
    """Finds sizes and switches in the tensors and makes parameters of them.

    Args:
      state: tensors by name.
      layout: None: VALL-E-X where there are language embeddings.
      n_heads: of the AR decoder (the NAR's are as wide); None: heads of 64.

    Raises:
      ValueError: a tensor is missing or left over, or the sizes do not fit.
    """
    tensors = Tensors(state)
    if "ar_text_embedding.word_embeddings.weight" not in tensors:
        raise ValueError("it has no tensor ar_text_embedding.word_embeddings.weight: not a VALL-E of these layouts")
    found: Layout = "vallex" if "ar_language_embedding.word_embeddings.weight" in tensors else "lifeiteng"
    width = tensors.take("ar_text_embedding.word_embeddings.weight", None, None).shape[1]
    if n_heads is not None and (n_heads < 1 or width % n_heads):
        raise ValueError(f"its AR decoder is {width} wide, which {n_heads} heads do not divide")
    head_width = width // n_heads if n_heads else HEAD_WIDTH
    ar = _ar(tensors, head_width)
    nar = _nar(tensors, head_width)
    if (ar[0].codebook_size, ar[0].n_symbols) != (nar[0].codebook_size, nar[0].n_symbols):
        raise ValueError(
            f"its AR decoder has {ar[0].codebook_size} codes and {ar[0].n_symbols} text symbols, its NAR decoder "
            f"{nar[0].codebook_size} and {nar[0].n_symbols}"
        )
    if layout not in (None, found):
        raise ValueError(f"it is of the layout {found}, not {layout}")
    if left := tensors.left():
        raise ValueError(f"it has a tensor {left[0]} that has no place here ({len(left)} such)")
    shared = [
        np.array_equal(
            state[f"nar_predict_layers.{j}.weight"], state[f"nar_audio_embeddings.{j + 2}.word_embeddings.weight"]
        )
        for j in range(nar[0].codebooks - 2)
    ]
    return Imported(found, *ar, *nar, tied=bool(shared) and all(shared))


def export(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """The inverse of `convert` for one decoder: tensors by name.

    Raises:
      ValueError: the layout has no place for one of the decoder's switches.
    """
    of_stage = {
        "ar": (("text_attention", ("bidirectional",)), ("group_size", (1,))),
        "nar": (("nar_stage", ("adaln",)), ("nar_context", ("prompt",))),
    }
    for name, possible in (
        ("activation", ("relu",)),
        *of_stage[config.stage],
        ("positions", ("sinusoidal",)),
        ("text_position_step", (1.0,)),
        ("text_position_anchor", ("segment",)),
    ):
        if getattr(config, name) not in possible:
            raise ValueError(f"model.{name}={getattr(config, name)} has no place in that layout, only {possible[0]}")
    stage, root = config.stage, config.d_model**0.5
    embed = params["embed"]
    padding = max(0, TEXT_ROWS - config.n_symbols)
    amplitude = np.array(config.position_amplitude)  # of positions whose scale is not learned
    tensors = {
        f"{stage}_text_embedding.word_embeddings.weight": np.pad(embed["phonemes"] * root, ((0, padding), (0, 0))),
        f"{stage}_text_position.alpha": embed.get("text_scale", amplitude)[None],
        f"{stage}_audio_position.alpha": embed.get("acoustic_scale", amplitude)[None],
    }
    if config.n_languages:
        tensors[f"{stage}_language_embedding.word_embeddings.weight"] = embed["language"] * root
    if stage == "ar":
        head = embed["acoustic"][: config.codebook_size + 1] if config.ar_tied else params["head"]
        tensors["ar_audio_embedding.word_embeddings.weight"] = embed["acoustic"] * root
        tensors["ar_predict_layer.weight"] = head
    else:
        # The first table has a row more, which pads in PyTorch and is never looked up.
        tables = [*(embed["acoustic"] * root)]
        tables[0] = np.concatenate([tables[0], np.zeros((1, config.d_model), np.float32)])
        for q, table in enumerate(tables):
            tensors[f"nar_audio_embeddings.{q}.word_embeddings.weight"] = table
        for j, head in enumerate(_heads(config, params)):
            tensors[f"nar_predict_layers.{j}.weight"] = head
            tensors[f"nar_stage_embeddings.{j}.word_embeddings.weight"] = params["stage"][j][None]
    blocks = params["transformer"]["blocks"]
    for layer in range(config.n_layers):
        sizes = {"n": config.n_heads, "c": 3}
        tensors |= _to_torch(blocks, _block(stage), f"{stage}_decoder.layers.{layer}.", sizes, layer)
    if config.norm_position == "pre":
        norm = params["transformer"]["final_norm"]
        tensors |= _to_torch(norm, _norm(stage), f"{stage}_decoder.norm.", {}, None)
    return {name: np.array(value, np.float32, order="C") for name, value in tensors.items()}


def _heads(config: ModelConfig, params: Params) -> list[np.ndarray]:
    """The output projections of the NAR's stages."""
    acoustic = params["embed"]["acoustic"]
    if config.nar_tying == "same":
        return [*acoustic[1:]]
    return [*acoustic[2:], *params["head"]] if config.nar_tying == "next" else [*params["head"]]


def _norm(stage: Stage) -> tuple:
    return _ADAPTIVE_NORM if stage == "nar" else _NORM


def _block(stage: Stage) -> list[tuple[str, tuple[str, ...], str]]:
    """All tensors of a layer."""
    norms = [
        (f"{theirs}.{name}", tuple(f"{ours}.{parameter}" for parameter in parameters), pattern)
        for theirs, ours in (("norm1", "attention_norm"), ("norm2", "mlp_norm"))
        for name, parameters, pattern in _norm(stage)
    ]
    return [*_BLOCK, *norms]


def _from_torch(tensors: Tensors, entries: Any, prefix: str, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Parameters by dotted name."""
    params: dict[str, np.ndarray] = {}
    for name, parameters, pattern in entries:
        axes = {axis: size for axis, size in sizes.items() if axis in pattern}
        axes |= {"c": 2} if pattern.startswith("(c e)") else {}
        value = tensors.take(prefix + name)
        try:
            value = rearrange(value, pattern, **axes)
        except EinopsError:
            raise ValueError(
                f"its tensor {prefix + name} has the shape {list(value.shape)}, which does not fit its decoder"
            ) from None
        params |= dict(zip(parameters, value if len(parameters) > 1 else [value], strict=True))
    return params


def _to_torch(
    params: Params, entries: Any, prefix: str, sizes: dict[str, int], layer: int | None
) -> dict[str, np.ndarray]:
    """Tensors of one layer of stacked parameters, or of parameters that are not stacked."""

    def get(path: str) -> np.ndarray:
        value: Any = params
        for part in path.split("."):
            value = value[part]
        return value if layer is None else value[layer]

    tensors = {}
    for name, parameters, pattern in entries:
        theirs, ours = pattern.split(" -> ")
        value = np.stack([get(parameter) for parameter in parameters]) if len(parameters) > 1 else get(parameters[0])
        axes = {axis: size for axis, size in sizes.items() if axis in pattern}
        axes |= {"c": 2} if pattern.startswith("(c e)") else {}
        tensors[prefix + name] = rearrange(value, f"{ours} -> {theirs}", **axes)
    return tensors


def _common(tensors: Tensors, stage: Stage, head_width: int) -> tuple[dict[str, Any], Params]:
    """What both stages have: fields of the configuration, and `embed` and `transformer` of the parameters."""
    phonemes = tensors.take(f"{stage}_text_embedding.word_embeddings.weight", None, None)
    width = phonemes.shape[1]
    if width % head_width:
        raise ValueError(f"its {stage.upper()} decoder is {width} wide, which heads of {head_width} do not divide")
    embed = {
        "phonemes": phonemes / width**0.5,
        "text_scale": tensors.take(f"{stage}_text_position.alpha", 1)[0],
        "acoustic_scale": tensors.take(f"{stage}_audio_position.alpha", 1)[0],
    }
    language = f"{stage}_language_embedding.word_embeddings.weight"
    if language in tensors:
        embed["language"] = tensors.take(language, None, width) / width**0.5
    first = f"{stage}_decoder.layers.0.linear1.weight"
    sizes = {"n": width // head_width, "h": head_width, "c": 3, "d": width, "e": width}
    sizes["f"] = tensors.take(first, None, width).shape[0]
    layers: list[dict[str, np.ndarray]] = []
    while f"{stage}_decoder.layers.{len(layers)}.linear1.weight" in tensors:
        layers.append(_from_torch(tensors, _block(stage), f"{stage}_decoder.layers.{len(layers)}.", sizes))
    stacked = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    transformer = {f"blocks.{name}": value for name, value in stacked.items()}
    pre = any(f"{stage}_decoder.norm.{name}" in tensors for name, _, _ in _norm(stage))
    if pre:
        final = _from_torch(tensors, _norm(stage), f"{stage}_decoder.norm.", sizes)
        transformer |= {f"final_norm.{name}": value for name, value in final.items()}
    fields = {
        "stage": stage,
        "d_model": width,
        "n_layers": len(layers),
        "n_heads": width // head_width,
        "d_ff": stacked["mlp.w_out"].shape[1],
        "norm_position": "pre" if pre else "post",
        "activation": "relu",
        "text_attention": "bidirectional",
        "position_scale": "learned",
        "n_symbols": len(phonemes),
        "n_languages": len(embed.get("language", ())),
    }
    return fields, {"embed": embed, **unflatten({f"transformer.{name}": value for name, value in transformer.items()})}


def _ar(tensors: Tensors, head_width: int) -> tuple[ModelConfig, Params]:
    fields, params = _common(tensors, "ar", head_width)
    acoustic = tensors.take("ar_audio_embedding.word_embeddings.weight", None, fields["d_model"])
    head = tensors.take("ar_predict_layer.weight", None, fields["d_model"])
    if len(acoustic) - len(head) not in (0, 1):
        raise ValueError(f"ar_audio_embedding has {len(acoustic)} rows and ar_predict_layer {len(head)}")
    config = ModelConfig(
        **fields,
        ar_tied=False,
        prepend_bos=len(acoustic) > len(head),
        codebooks=_codebooks(tensors),
        codebook_size=len(head) - 1,
    )
    params["embed"]["acoustic"] = acoustic / config.d_model**0.5
    return config, {**params, "head": head}


def _nar(tensors: Tensors, head_width: int) -> tuple[ModelConfig, Params]:
    codebooks = _codebooks(tensors)
    if codebooks < 2:
        raise ValueError("it has no NAR decoder (nar_audio_embeddings)")
    fields, params = _common(tensors, "nar", head_width)
    width = fields["d_model"]
    size = tensors.take("nar_predict_layers.0.weight", None, width).shape[0]
    stages = range(codebooks - 1)
    heads = np.stack([tensors.take(f"nar_predict_layers.{j}.weight", size, width) for j in stages])
    # The first table has a row more, which pads in PyTorch and is never looked up.
    tables = [
        tensors.take(f"nar_audio_embeddings.{q}.word_embeddings.weight", size + (q == 0), width)[:size]
        for q in range(codebooks)
    ]
    embeddings = [tensors.take(f"nar_stage_embeddings.{j}.word_embeddings.weight", 1, width) for j in stages]
    config = ModelConfig(**fields, nar_tying="none", codebooks=codebooks, codebook_size=size)
    params["embed"]["acoustic"] = np.stack(tables) / config.d_model**0.5
    return config, {**params, "head": heads, "stage": np.concatenate(embeddings)}


def _codebooks(tensors: Tensors) -> int:
    count = 0
    while f"nar_audio_embeddings.{count}.word_embeddings.weight" in tensors:
        count += 1
    return count
