"""A model for smoke tests and the quickstart's corpus: 192 wide, 4 layers; trains in minutes on two CPU cores.

valle train --preset tiny --stage ar --data DATASET --workdir runs/tiny-ar --steps 2000
"""

from valle_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, Stage, TrainConfig


def get_config(stage: Stage) -> Config:
    """Short rows: the corpora that this preset is for have utterances of a few seconds."""
    return Config(
        model=ModelConfig(d_model=192, n_layers=4, n_heads=4, d_ff=768, dropout=0.0, activation="relu"),
        data=DataConfig(row_length=1024, block_size=32),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        train=TrainConfig(
            steps=2_000, rows=2, log_every=20, evaluate_every=200, checkpoint_every=200, evaluate_rows=16
        ),
    )
