"""Train both decoders on one utterance; the sampler must then give back its codes and end by end of speech."""

import dataclasses

import jax
import numpy as np
import pytest
from packed import pack, tiny_config, utterance

from valle_jax.config import Config, OptimizerConfig, TrainConfig
from valle_jax.inference.batching import Job, generate
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.parallel.mesh import make_mesh
from valle_jax.text.vocabulary import EOS_ID
from valle_jax.train.optimizer import make_optimizer
from valle_jax.train.state import init_state
from valle_jax.train.step import jit_train_step

PROMPT_FRAMES = 6


def _overfit(stage: str, example, steps: int, **changes):
    config = Config(
        model=tiny_config(stage, d_model=64, **changes),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20, weight_decay=0.0),
        train=TrainConfig(steps=steps, rows=1),
    )
    decoder = build(config.model)
    optimizer = make_optimizer(config.optimizer, decoder.axes)
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1})
    state = init_state(decoder, optimizer, mesh, 0, ema=False)
    step = jit_train_step(config, decoder, optimizer, mesh)
    with jax.set_mesh(mesh):
        for i in range(steps):
            batch = pack([example], 64, config.model, stage=1 + i % 3, prompt_frames=PROMPT_FRAMES)
            if stage == "ar":
                batch = {name: value for name, value in batch.items() if name not in ("codes", "stage")}
            state, metrics = step(state, batch, jax.random.key(0))
    return (decoder, jax.device_get(state.params)), float(metrics["loss"])


@pytest.fixture(scope="module")
def overfitted():
    """One utterance and decoders that know it by heart."""
    example = utterance(np.random.default_rng(0), 10, 30)
    trained = {stage: _overfit(stage, example, steps) for stage, steps in (("ar", 250), ("nar", 300))}
    for stage, (_, loss) in trained.items():
        assert loss < 0.1, f"the {stage} decoder has not learnt its utterance: {loss:.2f}"
    return example, trained["ar"][0], trained["nar"][0]


def test_greedy_synthesis_gives_the_utterance_back(overfitted):
    (phonemes, codes), ar, nar = overfitted
    job = Job(np.append(phonemes, EOS_ID), codes[:PROMPT_FRAMES].astype(np.int32), 0, 60)
    take = generate([job], ar, nar, jax.random.split(jax.random.key(0), (1, 1)), Sampling(temperature=0))[0]
    assert take.finished
    np.testing.assert_array_equal(take.codes, codes[PROMPT_FRAMES:])


def test_valle_2_gives_the_utterance_back(overfitted):
    """Groups of two codes, and the stage as a token."""
    (phonemes, codes), _, _ = overfitted
    decoders = []
    for stage, steps in (("ar", 250), ("nar", 300)):
        decoder, loss = _overfit(stage, (phonemes, codes), steps, group_size=2, nar_stage="token")
        assert loss < 0.1, f"the {stage} decoder has not learnt its utterance: {loss:.2f}"
        decoders.append(decoder)
    job = Job(np.append(phonemes, EOS_ID), codes[:PROMPT_FRAMES].astype(np.int32), 0, 60)
    take = generate([job], *decoders, jax.random.split(jax.random.key(0), (1, 1)), Sampling(temperature=0))[0]
    assert take.finished
    np.testing.assert_array_equal(take.codes, codes[PROMPT_FRAMES:])


def test_a_limit_that_cuts_the_speech_is_reported(overfitted):
    (phonemes, codes), ar, nar = overfitted
    job = dataclasses.replace(
        Job(np.append(phonemes, EOS_ID), codes[:PROMPT_FRAMES].astype(np.int32), 0, 60), max_frames=9
    )
    take = generate([job], ar, nar, jax.random.split(jax.random.key(0), (1, 1)), Sampling(temperature=0))[0]
    assert not take.finished
    np.testing.assert_array_equal(take.codes[:, 0], codes[PROMPT_FRAMES : PROMPT_FRAMES + 9, 0])
