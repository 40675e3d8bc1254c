"""The paper's model and schedule (P1): 12 layers, 1024 wide, 96k acoustic frames a step, 800k steps.

valle train --preset base --stage ar --data DATASET --workdir runs/base-ar --steps 800000 --mesh data=64,fsdp=4
"""

from valle_jax.config import Config, ModelConfig, Stage


def get_config(stage: Stage) -> Config:
    """The defaults of `Config` are the paper's; recomputing the activations is what makes long rows fit."""
    return Config(model=ModelConfig(remat="dots"))
