"""A checkpoint's state dict, from any of the files in which checkpoints are passed around."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from valle_jax.errors import UserError
from valle_jax.interop import torch_file


def read(path: str | os.PathLike, *, average: bool = False) -> dict[str, np.ndarray]:
    """Tensors by name, float32.

    Args:
      path: `.safetensors`; `.npz` whose keys start with `state/`, others being left out; anything else is a file of
        `torch.save`: a state dict, or a checkpoint that holds one as `model` (and its moving average as `model_avg`).
      average: take `model_avg`.

    Raises:
      UserError: the file is unreadable, not of its kind, holds no tensors, or one of a kind that is not read.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".safetensors":
            tensors: Mapping = load_file(path)
        elif path.suffix == ".npz":
            with path.open("rb") as stream:
                file = np.lib.npyio.NpzFile(stream)
                tensors = {name.removeprefix("state/"): file[name] for name in file if name.startswith("state/")}
        else:
            tensors = _nested(torch_file.load(path), average)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for name, value in tensors.items():
        if isinstance(value, torch_file.Opaque):
            raise UserError(f"cannot read {path}: its {name} is a {value.name}, which is not read")
    # Distributed training leaves a prefix.
    found = {
        name.removeprefix("module."): np.asarray(value, np.float32)
        for name, value in tensors.items()
        if isinstance(value, np.ndarray)
    }
    if not found:
        raise UserError(f"{path} holds no tensors; give a state dict, or a checkpoint with one under `model`")
    return found


def _nested(value: object, average: bool) -> Mapping:
    if not isinstance(value, Mapping):
        raise ValueError("it holds no state dict")
    if average:
        if not isinstance(value.get("model_avg"), Mapping):
            raise ValueError("it has no moving average (`model_avg`)")
        return value["model_avg"]
    for name in ("model", "model_avg"):
        if isinstance(value.get(name), Mapping):
            return value[name]
    return value
