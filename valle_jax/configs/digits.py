"""`tiny` with what lets it find the place in the text within minutes, on spoken digits (docs/quickstart.md says why).

python -m data_prep.synthetic --out corpus --minutes 70
valle prepare --source corpus/train/manifest.jsonl --out data/digits
valle train --preset digits --stage ar --data data/digits --workdir runs/digits-ar
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from valle_jax.config import Config, Stage
from valle_jax.configs import tiny

if TYPE_CHECKING:
    from valle_jax.inference.synthesizer import Options

FRAMES_PER_PHONEME = 3.8  # of the corpus

_BOTH: dict[str, Any] = {
    "model.text_position_step": FRAMES_PER_PHONEME,
    "model.text_position_anchor": "utterance",
    "model.query_key_init": "shared",
    "model.n_heads": 6,
    "train.evaluate_rows": 14,
}
_STAGE: dict[Stage, dict[str, Any]] = {
    "ar": {
        "model.n_layers": 1,  # more steps in the same time teach more than more layers, here and in the NAR
        "model.position_amplitude": 2.0,
        "data.join_utterances": 4,
        "train.steps": 1_800,
        "train.rows": 1,
        "train.code_noise": 0.1,
        "train.text_dropout": 0.1,
    },
    "nar": {
        "model.n_layers": 2,
        "model.code_init": "codec",
        "data.join_utterances": 2,
        "data.nar_prompt": "segment",
        "data.row_length": 512,
        "optimizer.learning_rate": 2e-3,
        "train.steps": 1_200,
        "train.rows": 2,  # two stages a step: with one, the tables of the codebooks learn from too noisy gradients
    },
}


def get_config(stage: Stage) -> Config:
    """Each decoder has its own."""
    return tiny.get_config(stage).override(_BOTH | _STAGE[stage])


def get_options() -> Options:
    """How such a model is to speak.

    Guidance holds a young AR to its text and a young NAR to its prompt; lengths stay near what the prompt's rate
    predicts.
    """
    from valle_jax.inference.sampling import Sampling
    from valle_jax.inference.synthesizer import Options

    return Options(
        sampling=Sampling(temperature=0.9, top_k=30, guidance=3.0),
        min_rate_ratio=0.6,
        max_rate_ratio=1.8,
        nar_temperature=0.8,
        nar_guidance=3.25,
    )
