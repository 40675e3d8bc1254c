"""The loss on the validation splits, during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from valle_jax.model import Decoder, Params
from valle_jax.parallel.hosts import HostRows
from valle_jax.train.losses import Sums
from valle_jax.train.step import jit_eval_step

VALIDATION_SPLITS = ("valid_utterance", "valid_speaker")

HostBatch = Mapping[str, np.ndarray]


class Validation:
    """Evaluates parameters on fixed batches.

    Attributes:
      splits: name of a split, such as `valid_speaker`, and its batches; a split without batches is left out.
    """

    def __init__(self, decoder: Decoder, rows: HostRows, splits: Mapping[str, Sequence[HostBatch]]):
        """`rows` are those of each global batch of which this process has the batches in `splits`."""
        self.splits = {name: batches for name, batches in splits.items() if batches}
        self._rows = rows
        self._step: Callable[[Params, dict[str, jax.Array]], Sums] = jit_eval_step(decoder, rows.mesh)

    def __call__(self, params: Params) -> dict[str, float]:
        """`{split}_loss` (nats per target), `{split}_accuracy_top10`; for the NAR also these with `_codebook_{k}`.

        k counts from 1 as in the papers: 2..Q. A stage that no batch drew is left out.
        """
        values: dict[str, float] = {}
        with jax.set_mesh(self._rows.mesh):
            for split, batches in self.splits.items():
                values |= _means(split, [jax.device_get(self._step(params, self._rows.place(b))) for b in batches])
        return values


def _means(split: str, parts: list[Sums]) -> dict[str, float]:
    total = jax.tree.map(lambda *xs: np.sum(xs, axis=0, dtype=np.float64), *parts)
    if not total.targets:
        return {}
    values = {
        f"{split}_loss": float(total.loss / total.targets),
        f"{split}_accuracy_top10": float(total.correct_top10 / total.targets),
    }
    if total.stage_loss is not None:
        stages = zip(total.stage_loss, total.stage_targets, total.stage_correct_top10, strict=True)
        for k, (loss, targets, correct) in enumerate(stages, start=2):
            if targets:
                values[f"{split}_loss_codebook_{k}"] = float(loss / targets)
                values[f"{split}_accuracy_top10_codebook_{k}"] = float(correct / targets)
    return values


def selection_loss(values: Mapping[str, float]) -> float | None:
    """What the best checkpoint is chosen by: the mean of the splits' losses; None where nothing was validated."""
    losses = [values[name] for name in ("valid_utterance_loss", "valid_speaker_loss") if name in values]
    return math.fsum(losses) / len(losses) if losses else None
