"""About a billion parameters, for a corpus of tens of thousands of hours: 24 layers, 1792 wide, heads of 128.

valle plan --preset large --stage ar --topology v5p:4x4x4 --mesh data=16,fsdp=4 --rows 256
valle train --preset large --stage ar --data DATASET --workdir runs/large-ar --mesh data=16,fsdp=4 --set train.rows=256
"""

from valle_jax.config import Config, ModelConfig, OptimizerConfig, Stage


def get_config(stage: Stage) -> Config:
    """The paper's schedule at a lower peak: wider models take smaller steps."""
    return Config(
        model=ModelConfig(d_model=1792, n_layers=24, n_heads=14, d_ff=7168, remat="dots"),
        optimizer=OptimizerConfig(learning_rate=2e-4),
    )
