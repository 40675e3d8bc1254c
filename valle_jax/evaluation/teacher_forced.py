"""Losses and top-10 accuracies of a model's two decoders on recordings, where every earlier code is the recording's."""

from __future__ import annotations

import os
import pathlib
from typing import cast

from valle_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from valle_jax.data.dataset import Dataset
from valle_jax.data.pipeline import validation_batches
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import load_model_dir
from valle_jax.model import Params, build
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.train.evaluate import VALIDATION_SPLITS, Validation

_BATCH = 4  # rows
KINDS = ("loss", "accuracy_top10")
TeacherForced = dict[str, dict[str, list[float | None]]]


def teacher_forced(
    model_dir: str | os.PathLike[str], dataset_dir: str | os.PathLike[str], *, rows: int = 16
) -> TeacherForced:
    """Of each validation split that has utterances, `loss` (nats) and `accuracy_top10` of codebooks 1..Q, in order.

    The NAR's acoustic prompts are drawn as `DataConfig` does by default. None stands for a codebook without targets.

    Args:
      model_dir: what `valle export` wrote.
      dataset_dir: what `valle prepare` wrote with the model's codec and vocabulary.
      rows: of speech of each split, at most; a row is as long as the longest sequence that the model was trained on.

    Raises:
      UserError: no model or dataset, another codec or vocabulary, or no utterances in the validation splits.
    """
    model, dataset = load_model_dir(pathlib.Path(model_dir)), Dataset.open(dataset_dir)
    model.codec.check_same(dataset.info.codec, str(model_dir), str(dataset_dir))
    if not isinstance(model.vocabulary, Vocabulary):
        raise UserError(f"{model_dir} has a text table of its own, and no dataset has that: no teacher-forced losses")
    if not model.vocabulary.is_extension_of(dataset.info.vocabulary):
        model.vocabulary.check_same(dataset.info.vocabulary, str(model_dir), str(dataset_dir))

    def values(config: ModelConfig, params: Params) -> dict[str, float]:
        run = Config(config, DataConfig(row_length=model.max_tokens), train=TrainConfig(rows=_BATCH))
        stages = config.codebooks - 1 if config.stage == "nar" else 1
        splits = {split: validation_batches(dataset, run, split, rows * stages) for split in VALIDATION_SPLITS}
        return Validation(build(config), HostRows.of(make_mesh({"data": 1}), _BATCH), splits)(params)

    ar, nar = values(model.config_ar, model.params_ar), values(model.config_nar, model.params_nar)
    codebooks = range(2, model.codec.codebooks + 1)
    found = {
        split: {
            kind: [ar[f"{split}_{kind}"], *(nar.get(f"{split}_{kind}_codebook_{k}") for k in codebooks)]
            for kind in KINDS
        }
        for split in VALIDATION_SPLITS
        if f"{split}_loss" in ar
    }
    if not found:
        raise UserError(f"{dataset_dir} has no usable utterances in {' or '.join(VALIDATION_SPLITS)}")
    return cast(TeacherForced, found)
