"""A model for one accelerator or a patient CPU: 256 wide, 4 layers, 4 heads (the size that `benchmarks/` times).

valle train --preset small --stage ar --data DATASET --workdir runs/small-ar --steps 20000
"""

from valle_jax.config import Config, ModelConfig, OptimizerConfig, Stage, TrainConfig


def get_config(stage: Stage) -> Config:
    """Four rows of 2,560 tokens a step."""
    return Config(
        model=ModelConfig(d_model=256, n_layers=4, n_heads=4, d_ff=1024),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=200),
        train=TrainConfig(steps=20_000, rows=4, evaluate_every=500, checkpoint_every=500, evaluate_rows=16),
    )
