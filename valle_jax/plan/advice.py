"""What a plan means for the batch and the learning rate."""

from __future__ import annotations

import math

from valle_jax.config import Config
from valle_jax.configs import get_preset
from valle_jax.plan.flops import Speech


def paper_rows(config: Config, speech: Speech) -> float:
    """Packed rows that hold the paper's batch of 96k acoustic frames (P1, training)."""
    frames = get_preset("base", config.model.stage).train.tokens_per_batch
    return frames / (config.data.row_length * speech.frame_share)


def batch_advice(config: Config, chips: int, row_parts: int, speech: Speech) -> list[str]:
    """Sentences about batch size and learning rate.

    Args:
      config: with `train.rows` set.
      chips: of the mesh.
      row_parts: into how many parts the mesh cuts the rows (data x fsdp).
      speech: what the rows hold.

    The rule for the learning rate is that of Malladi et al. (2022), "On the SDEs and scaling rules for adaptive
    gradient algorithms": with k times the batch, learning rate and 1/epsilon times sqrt(k), 1 - beta times k. Warm-up
    and steps are shortened so that as much speech is heard.
    """
    rows, optimizer, train = config.train.rows, config.optimizer, config.train
    per_part = rows / row_parts / train.accumulate
    paper = paper_rows(config, speech)
    lines = [
        f"{rows} rows of {config.data.row_length} tokens hold about {_count(rows * config.data.row_length)} tokens, "
        f"{_count(rows * config.data.row_length * speech.frame_share)} acoustic frames; "
        f"{per_part:g} rows on a chip at a time."
    ]
    whole = max(1, round(paper))
    if paper < row_parts:
        lines.append(
            f"The paper's batch of 96k frames is {paper:.0f} rows: it can fill {whole} of the {row_parts} parts into "
            f"which data x fsdp cuts a batch; {row_parts - whole} would idle"
            + (" unless tensor takes chips in their place." if chips == row_parts else ".")
        )
    else:
        lines.append(
            f"The paper's batch of 96k frames is {paper:.0f} rows, {paper / row_parts:.1f} on each of the {row_parts} "
            "parts into which data x fsdp cuts a batch."
        )
    k = rows / paper
    if k > 1.25:
        b1, b2 = 1 - k * (1 - optimizer.b1), 1 - k * (1 - optimizer.b2)
        lines.append(
            f"This batch is {k:.1f} times the paper's. Square-root rule for Adam (Malladi et al. 2022): "
            f"optimizer.learning_rate={optimizer.learning_rate * math.sqrt(k):.2g}, optimizer.eps="
            f"{optimizer.eps / math.sqrt(k):.1g}, "
            + (f"optimizer.b1={b1:.3g}, optimizer.b2={b2:.3g}" if b1 > 0.5 and b2 > 0.5 else _BETAS_END)
            + f"; for the same speech in all, optimizer.warmup_steps={optimizer.warmup_steps / k:.0f} and "
            f"--steps {train.steps / k:.0f}."
        )
        if k > 8:
            lines.append(
                "The rule was tested up to some tens of times a batch; gains end at a critical batch size that nobody "
                "has measured for VALL-E. Compare losses at equal frames before the long run."
            )
    elif k < 0.8:
        lines.append(
            f"This batch is {k:.2f} of the paper's; train.accumulate={math.ceil(1 / k)} with as many times the rows "
            "makes it up."
        )
    return lines


_BETAS_END = "the betas as they are (1 - beta times so much would leave no memory, where the rule ends)"


def _count(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
