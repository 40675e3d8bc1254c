"""The compiled programs of a model as portable StableHLO (`jax.export`), to be served without this package.

Each program is a file that `jax.export.deserialize` reads; what it takes and gives stands in `programs.json`. Weights
are arguments, by name as in `ar.safetensors` and `nar.safetensors`, so that one program serves all models of a shape.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.export  # a module of its own, which `import jax` leaves out
import jax.numpy as jnp

from valle_jax.config import ModelConfig
from valle_jax.errors import UserError
from valle_jax.inference.generate import generate_nar
from valle_jax.inference.model_dir import flatten, unflatten
from valle_jax.model import Decoder, build
from valle_jax.model.ar import ARDecoder

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The fixed sizes of the programs.

    Attributes:
      rows: utterances side by side.
      prefix_tokens: phonemes and frames of the prompt, padded to it.
      max_frames: that can be decoded behind the prefix.
    """

    rows: int = 1
    prefix_tokens: int = 512
    max_frames: int = 1024


def export(
    config_ar: ModelConfig,
    config_nar: ModelConfig,
    folder: str | pathlib.Path,
    shapes: Shapes,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes ar_prefill, ar_step and nar.

    `ar_prefill(params, batch)` gives logits [rows, V + 1] and the list of arrays that is the cache; `ar_step(params,
    token, position, cache)` the same again, one token per row later; `nar(params, batch)` all codes, int32 [rows,
    prefix_tokens + max_frames, Q]. Batches are as `valle_jax.data.batch` describes them.
    """
    if config_ar.group_size > 1:
        raise UserError(f"model.group_size={config_ar.group_size} has no place in ar_step, which takes one code a row")
    # XLA's attention is the one that every platform has.
    ar, nar = (
        build(dataclasses.replace(config, dtype=dtype, attention="xla", remat="none"))
        for config in (config_ar, config_nar)
    )
    whole = shapes.prefix_tokens + shapes.max_frames
    ar_params, nar_params = (flatten(decoder.abstract_params) for decoder in (ar, nar))
    prefix = _batch(ar, shapes.rows, shapes.prefix_tokens)

    def bound(params: dict[str, jax.Array]) -> ARDecoder:
        model = ar.bind(unflatten(params))
        assert isinstance(model, ARDecoder)
        return model

    def with_cache(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        return bound(params).prefill(batch, whole)

    structure = jax.tree.structure(jax.eval_shape(with_cache, ar_params, prefix)[1])

    def prefill(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        logits, cache = with_cache(params, batch)
        return logits[:, 0], jax.tree.leaves(cache)

    def step(
        params: dict[str, jax.Array], token: jax.Array, position: jax.Array, cache: list[jax.Array]
    ) -> tuple[jax.Array, list[jax.Array]]:
        model = bound(params)
        grown = jax.tree.unflatten(structure, cache)
        logits, grown = model.decode(token[:, None], position, grown, model.unstack())
        return logits[:, 0], jax.tree.leaves(grown)

    def fill(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return generate_nar(nar, unflatten(params), batch)

    ids = jax.ShapeDtypeStruct((shapes.rows,), jnp.int32)
    cache = jax.eval_shape(prefill, ar_params, prefix)[1]
    rows = _batch(nar, shapes.rows, whole)
    codes = {"codes": jax.ShapeDtypeStruct((shapes.rows, whole, nar.config.codebooks), jnp.int32)}
    programs: dict[str, tuple[Callable, tuple]] = {
        "ar_prefill": (prefill, (ar_params, prefix)),
        "ar_step": (step, (ar_params, ids, ids, cache)),
        "nar": (fill, (nar_params, rows | codes)),
    }
    _write(folder, programs, platforms)


def export_codec(codec: Any, folder: str | pathlib.Path, rows: int, frames: int, platforms: Sequence[str]) -> None:
    """Writes codec_decode: `codec_decode(params, codes)` gives samples, float32 [rows, frames * hop].

    `codec` is an `EncodecJax`; the weights, by the names that programs.json has, go to codec.safetensors beside it.
    """
    from safetensors.numpy import save_file

    params, function = codec.decoder()
    codes = jax.ShapeDtypeStruct((rows, frames, codec.info.codebooks), jnp.int32)
    _write(folder, {"codec_decode": (function, (params, codes))}, platforms)
    save_file(jax.device_get(params), pathlib.Path(folder) / "codec.safetensors")


def _batch(decoder: Decoder, rows: int, tokens: int) -> dict[str, jax.ShapeDtypeStruct]:
    names = ["token", "kind", "segment", "position", *["language"] * bool(decoder.config.n_languages)]
    return {name: jax.ShapeDtypeStruct((rows, tokens), jnp.int32) for name in names}


def _write(folder: str | pathlib.Path, programs: dict[str, tuple[Callable, tuple]], platforms: Sequence[str]) -> None:
    """Files `NAME.jax_export`, and their part of programs.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest_path = folder / "programs.json"
    manifest = json.loads(manifest_path.read_text(encoding="utf-8")) if manifest_path.exists() else {}
    for name, (function, arguments) in programs.items():
        exported = jax.export.export(jax.jit(function), platforms=platforms)(*arguments)
        (folder / f"{name}.jax_export").write_bytes(exported.serialize())
        manifest[name] = {
            "file": f"{name}.jax_export",
            "platforms": list(platforms),
            "inputs": _describe(arguments),
            "outputs": _describe(jax.eval_shape(function, *arguments)),
        }
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _describe(tree: Any) -> dict[str, str]:
    """Place in the arguments or results, and dtype and shape."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype.name}{list(leaf.shape)}" for path, leaf in leaves}
