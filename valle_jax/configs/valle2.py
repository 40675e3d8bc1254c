"""VALL-E 2 (P2) at the size and by the schedule of P1's model: groups of two codes, the stage as a token.

valle train --preset valle2 --stage ar  --data DATASET --workdir runs/valle2-ar  --mesh data=64,fsdp=4
valle train --preset valle2 --stage nar --data DATASET --workdir runs/valle2-nar --mesh data=64,fsdp=4
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from valle_jax.config import Config, ModelConfig, Stage

if TYPE_CHECKING:
    from valle_jax.inference.synthesizer import Options


def get_config(stage: Stage) -> Config:
    """Two codes a step have the fewest errors in P2; the explicit prompt of its NAR is the default, a prefix."""
    return Config(model=ModelConfig(group_size=2, nar_stage="token", remat="dots"))


def get_options() -> Options:
    """Repetition-aware sampling with P2's window and threshold; of its range for top-p, 0 to 0.8, the upper end."""
    from valle_jax.inference.sampling import Sampling
    from valle_jax.inference.synthesizer import Options

    return Options(sampling=Sampling(top_p=0.8, repetition_window=10, repetition_threshold=0.1))
