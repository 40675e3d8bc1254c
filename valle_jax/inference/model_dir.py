"""The model directory: what `valle export` writes and everything that synthesises reads.

config.json        {"version": 1, "max_tokens": …, "ar": {…}, "nar": {…}}: the configurations of the two decoders
vocabulary.json    the symbol table, or the token table of an imported model
codec.json         the codec's facts
ar.safetensors     float32 parameters, named by their path, such as `transformer.blocks.w_qkv`
nar.safetensors
model_card.md
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from valle_jax.codec.base import CodecInfo
from valle_jax.config import Config, ModelConfig, Stage
from valle_jax.errors import UserError
from valle_jax.model import Params, build
from valle_jax.text.token_table import TokenTable
from valle_jax.text.vocabulary import Vocabulary

VERSION = 1


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """A model directory in memory; parameters are nested dicts of float32 numpy arrays.

    `max_tokens` is the longest sequence (phonemes and frames) that both decoders were trained on.
    """

    config_ar: ModelConfig
    params_ar: Params
    config_nar: ModelConfig
    params_nar: Params
    vocabulary: Vocabulary | TokenTable
    codec: CodecInfo
    max_tokens: int


def flatten(params: Params, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flatten`."""
    params: Params = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return params


def _check_params(config: ModelConfig, params: Params, source: str) -> None:
    """UserError unless the parameters are exactly those of the configuration's decoder."""
    expected = {name: value.shape for name, value in flatten(build(config).abstract_params).items()}
    found = {name: value.shape for name, value in flatten(params).items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{source}: parameter {name} has shape {found.get(name)}, its configuration asks for "
                f"{expected.get(name)}"
            )


def save_params(model: ModelDir, folder: pathlib.Path) -> None:
    """Writes ar.safetensors and nar.safetensors."""
    for stage, config, params in (
        ("ar", model.config_ar, model.params_ar),
        ("nar", model.config_nar, model.params_nar),
    ):
        _check_params(config, params, f"the {stage} decoder to export")
        save_file({k: np.array(v, order="C") for k, v in flatten(params).items()}, folder / f"{stage}.safetensors")


def save_model_dir(path: str | pathlib.Path, model: ModelDir, card: str) -> None:
    """Writes a model directory; `card` is the Markdown of model_card.md. UserError where no such folder can be."""
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the model directory {path}: {error.strerror or error}") from None
    save_params(model, path)
    description = {
        "version": VERSION,
        "max_tokens": model.max_tokens,
        "ar": dataclasses.asdict(model.config_ar),
        "nar": dataclasses.asdict(model.config_nar),
    }
    for name, value in (
        ("config.json", description),
        ("vocabulary.json", model.vocabulary.to_json()),
        ("codec.json", model.codec.to_json()),
    ):
        (path / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (path / "model_card.md").write_text(card, encoding="utf-8")


def load_model_dir(path: str | pathlib.Path) -> ModelDir:
    """Reads a model directory.

    Raises:
      UserError: something is missing, damaged, of another version, or the parameters do not fit the configuration.
    """
    path = pathlib.Path(path)

    def read(name: str) -> dict:
        if not (path / name).is_file():
            raise UserError(f"{path} is not a model directory: {name} is missing; `valle export` makes one")
        try:
            return json.loads((path / name).read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{path / name} is damaged: not JSON; copy or export the model again") from None

    config = read("config.json")
    if config.get("version") != VERSION:
        raise UserError(f"{path} has version {config.get('version')}, this program reads version {VERSION}")
    parts: dict[Stage, tuple[ModelConfig, Params]] = {}
    for stage in ("ar", "nar"):
        file = path / f"{stage}.safetensors"
        if not file.is_file():
            raise UserError(f"{path} is not a model directory: {file.name} is missing; `valle export` makes one")
        model_config = Config.from_json({"model": config.get(stage, {})}).model
        try:
            parts[stage] = model_config, unflatten(load_file(file))
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}); copy or export the model again") from None
        _check_params(*parts[stage], str(file))
    try:
        table = read("vocabulary.json")
        vocabulary = TokenTable.from_json(table) if "tokens" in table else Vocabulary.from_json(table)
        codec = CodecInfo.from_json(read("codec.json"))
        return ModelDir(*parts["ar"], *parts["nar"], vocabulary, codec, config["max_tokens"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: a .json file lacks a field ({error}); export the model again") from None
