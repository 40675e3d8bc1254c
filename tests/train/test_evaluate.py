"""Validation: means over all targets of a split, whatever the batches."""

import jax
import numpy as np
import pytest
from train_helpers import random_rows, sized, tiny_config

from valle_jax.model import build
from valle_jax.parallel.hosts import HostRows
from valle_jax.parallel.mesh import make_mesh
from valle_jax.train.evaluate import Validation, selection_loss


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_means_over_batches(stage):
    config = sized(tiny_config(stage, model__n_layers=1))
    decoder = build(config.model)
    params = jax.jit(decoder.init)(jax.random.key(0))
    batches = [random_rows(config, 4, seed) for seed in range(3)]
    for batch in batches[1:]:
        batch["target"][1:] = -1  # batches of very different numbers of targets: a mean of means would be another
    rows = HostRows.of(make_mesh({"data": 2}), 4)
    validation = Validation(decoder, rows, {"valid_speaker": batches, "valid_utterance": []})
    assert list(validation.splits) == ["valid_speaker"]
    values = validation(params)

    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    log_probs = np.asarray(jax.nn.log_softmax(jax.jit(decoder.logits)(params, rows)), np.float64)
    chosen = np.nonzero(rows["target"] >= 0)
    nats = -log_probs[(*chosen, rows["target"][chosen])]
    assert values["valid_speaker_loss"] == pytest.approx(nats.mean(), rel=1e-5)  # float32 against float64
    rank = (log_probs[chosen] > -nats[:, None]).sum(1)
    assert values["valid_speaker_accuracy_top10"] == pytest.approx((rank < 10).mean(), abs=1e-12)
    names = {"valid_speaker_loss", "valid_speaker_accuracy_top10"}
    if stage == "nar":
        for k in (2, 3):
            of_stage = rows["stage"][chosen[0]] == k - 1
            assert values[f"valid_speaker_loss_codebook_{k}"] == pytest.approx(nats[of_stage].mean(), rel=1e-5)
            accuracy = (rank[of_stage] < 10).mean()
            assert values[f"valid_speaker_accuracy_top10_codebook_{k}"] == pytest.approx(accuracy, abs=1e-12)
            names |= {f"valid_speaker_{kind}_codebook_{k}" for kind in ("loss", "accuracy_top10")}
    assert values.keys() == names


def test_what_the_best_checkpoint_is_chosen_by():
    assert selection_loss({}) is None
    assert selection_loss({"valid_utterance_loss": 2.0, "valid_utterance_accuracy_top10": 0.5}) == 2.0
    assert selection_loss({"valid_utterance_loss": 2.0, "valid_speaker_loss": 3.0}) == 2.5
