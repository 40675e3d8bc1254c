"""A model as a state dict of lifeiteng/vall-e."""

from __future__ import annotations

import pathlib

import numpy as np
from safetensors.numpy import save_file

from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir
from valle_jax.interop import layout


def write(model: ModelDir, path: pathlib.Path) -> None:
    """Writes `{"model": state dict}` to a .pt file, which needs PyTorch, or the state dict to a .safetensors file.

    Raises:
      UserError: one of the model's switches has no place in the layout, another suffix, or PyTorch is missing.
    """
    tensors: dict[str, np.ndarray] = {}
    for config, params in ((model.config_ar, model.params_ar), (model.config_nar, model.params_nar)):
        try:
            tensors |= layout.export(config, params)
        except ValueError as error:
            raise UserError(f"the {config.stage.upper()} decoder cannot be exported to PyTorch: {error}") from None
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix in (".pt", ".pth"):
        try:
            import torch
        except ImportError:
            raise UserError(f"{path} needs torch; install it, or write a .safetensors file") from None
        torch.save({"model": {name: torch.from_numpy(value) for name, value in tensors.items()}}, path)
    else:
        raise UserError(f"{path}: the suffix must be .pt, .pth or .safetensors")
