"""Fill and speed of packing plans, over utterances of LibriSpeech-like lengths.

Limits: fill of at least 97 % at rows of 2,560 tokens or more, and 2 µs of one core per utterance.

python benchmarks/packing.py [--entries 100000 1000000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from synthetic import SYMBOLS_PER_SECOND, utterance_seconds

from valle_jax.data.dataset import Index
from valle_jax.data.packing import Packing, make_plan

FRAMES_PER_SECOND = 75
ROW_LENGTHS = (1536, 2560, 4096)


def speech_index(entries: int, seed: int = 0) -> Index:
    """An index without records."""
    random = np.random.default_rng(seed)
    seconds = utterance_seconds(entries, random)
    rate = SYMBOLS_PER_SECOND * random.normal(1, 0.1, entries)
    return Index(
        offset=np.arange(entries, dtype=np.int64) * 20_000,
        n_phonemes=np.maximum(1, seconds * rate).astype(np.uint16),
        n_frames=(seconds * FRAMES_PER_SECOND).astype(np.int32),
        speaker=(np.arange(entries) // 110).astype(np.uint64),
        split=np.zeros(entries, np.uint8),
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    print(
        f"{'entries':>9} {'mean s':>6} {'row':>5} {'joined':>6} {'rows':>8} {'fill':>6} {'skipped':>7} "
        f"{'µs/utterance':>12}"
    )
    for entries in parser.parse_args().entries:
        index = speech_index(entries)
        mean_seconds = index.n_frames.mean() / FRAMES_PER_SECOND
        for row_length in ROW_LENGTHS:
            for join in (1, 2):
                packing = Packing("train", 0, 0, row_length, join, 256, 1, 1, 0)
                # Processor time: what one core needs, whatever else runs on the machine.
                start = time.process_time()
                plan = make_plan(index, packing)
                microseconds = (time.process_time() - start) / entries * 1e6
                print(
                    f"{entries:9,} {mean_seconds:6.2f} {row_length:5,} {join:6} {len(plan):8,} {plan.fill:6.1%} "
                    f"{plan.n_skipped:7,} {microseconds:12.2f}"
                )


if __name__ == "__main__":
    main()
