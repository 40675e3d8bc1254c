"""Presets by name. Each module builds the `Config` of a stage and opens with the command that launches it."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from valle_jax.config import Config, Stage
from valle_jax.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType

    from valle_jax.inference.synthesizer import Options

PRESETS = ("tiny", "digits", "small", "base", "large", "valle2")


def get_preset(name: str, stage: Stage) -> Config:
    """The preset's configuration for one stage; UserError for an unknown name."""
    config = _module(name).get_config(stage)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, stage=stage))


def get_options(name: str) -> Options:
    """How a model of the preset is to speak: the preset's own options, or the default ones."""
    module = _module(name)
    if hasattr(module, "get_options"):
        return module.get_options()
    from valle_jax.inference.synthesizer import Options

    return Options()


def _module(name: str) -> ModuleType:
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return importlib.import_module(f"valle_jax.configs.{name}")
