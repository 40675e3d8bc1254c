"""Presets by name. Each module builds one `Config` and opens with the command that launches it."""

from __future__ import annotations

import dataclasses
import importlib

from valle_jax.config import Config, Stage
from valle_jax.errors import UserError

PRESETS = ("tiny", "small", "base", "large")


def get_preset(name: str, stage: Stage) -> Config:
    """The preset's configuration for one stage; UserError for an unknown name."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    config = importlib.import_module(f"valle_jax.configs.{name}").get_config()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, stage=stage))
