"""`--init-from`: parameters of a model directory as the start of a new run."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import numpy as np

from valle_jax.config import ModelConfig
from valle_jax.data.info import DatasetInfo
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import flatten, load_model_dir, unflatten
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.train.state import TrainState


def warm_start(state: TrainState, model_dir: str | pathlib.Path, config: ModelConfig, info: DatasetInfo) -> TrainState:
    """A fresh state with the parameters of the model directory's decoder of the same stage.

    Where the dataset's symbol table extends the model's, the phoneme embeddings of the new symbols keep their fresh
    values. The optimizer starts anew.

    Raises:
      UserError: another codec, a symbol table that is no extension, or parameters of another shape.
    """
    model = load_model_dir(model_dir)
    model.codec.check_same(info.codec, str(model_dir), "the dataset")
    if not isinstance(model.vocabulary, Vocabulary):
        raise UserError(f"--init-from {model_dir}: an imported model has a text table of its own, which no dataset has")
    if not info.vocabulary.is_extension_of(model.vocabulary):
        info.vocabulary.check_same(model.vocabulary, "the dataset", str(model_dir))
    given = flatten(model.params_ar if config.stage == "ar" else model.params_nar)
    fresh = flatten(state.params)
    if given.keys() != fresh.keys():
        odd = sorted(given.keys() ^ fresh.keys())[0]
        where = str(model_dir) if odd in given else "this configuration"
        raise UserError(f"--init-from {model_dir}: only {where} has parameter {odd}; use the model's switches")
    params = unflatten({name: _start(name, leaf, given[name], model_dir) for name, leaf in fresh.items()})
    average = None if state.ema_params is None else jax.tree.map(lambda p: p.copy(), params)
    return dataclasses.replace(state, params=params, ema_params=average)


def _start(name: str, fresh: jax.Array, given: np.ndarray, model_dir: str | pathlib.Path) -> jax.Array:
    """`given`, placed like `fresh`; rows that only the enlarged phoneme table has come from `fresh`."""
    enlarged = name == "embed.phonemes" and given.shape[0] < fresh.shape[0] and given.shape[1:] == fresh.shape[1:]
    if enlarged:
        return jax.jit(lambda f, g: f.at[: len(g)].set(g), out_shardings=fresh.sharding)(fresh, given)
    if given.shape != fresh.shape:
        raise UserError(
            f"--init-from {model_dir}: parameter {name} has shape {given.shape}, "
            f"this configuration asks for {fresh.shape}"
        )
    return jax.device_put(given, fresh.sharding)
