"""How well pocketsphinx reads each variant of espeak-ng: what the tables of `data_prep.synthetic` were chosen by.

python -m data_prep.select_variants        (about 10 minutes on 2 cores)
"""

from __future__ import annotations

import collections
import os

import numpy as np

from data_prep.espeak import Espeak, variants
from valle_jax.hearing.digits import DIGITS, edit_distance, transcribe_many

PITCHES = (10, 30, 50, 70, 90)
SEQUENCES = 3  # of 7 digits, at each pitch
RATE = 165


def main() -> None:
    """Prints each variant with its digit accuracy, on average and at each pitch, best first."""
    espeak, random = Espeak(), np.random.default_rng(0)
    cases, audio = [], []
    for variant in variants():
        for pitch in PITCHES:
            for _ in range(SEQUENCES):
                words = [DIGITS[digit] for digit in random.integers(0, 10, 7)]
                cases.append((variant, pitch, words))
                audio.append(espeak.say(" ".join(words), f"en-us+{variant}", pitch=pitch, rate=RATE))
    accuracy: dict[str, dict[int, float]] = collections.defaultdict(dict)
    for (variant, pitch, words), heard in zip(
        cases, transcribe_many(audio, espeak.sample_rate, os.cpu_count() or 1), strict=True
    ):
        share = 1 - edit_distance(words, heard) / len(words)
        accuracy[variant][pitch] = accuracy[variant].get(pitch, 0) + share / SEQUENCES
    print(f"{'variant':16} mean  at pitch {', '.join(map(str, PITCHES))}")
    for variant, of in sorted(accuracy.items(), key=lambda item: -sum(item[1].values())):
        print(f"{variant:16} {np.mean(list(of.values())):.2f}  " + " ".join(f"{of[pitch]:.2f}" for pitch in PITCHES))


if __name__ == "__main__":
    main()
