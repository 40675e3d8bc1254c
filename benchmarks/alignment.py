"""Whether forced alignment tells right texts from wrong ones: scores of recordings with their own and other texts.

    python benchmarks/alignment.py speech/LibriSpeech speech/manifest.jsonl --limit 40

Each corpus is sampled evenly. Wrong texts are the recording's own words in the opposite order, and another recording's.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Sequence

import numpy as np
import tyro
from tqdm import tqdm

from valle_jax.audio import read_audio
from valle_jax.evaluation.corpus import Corpus, Spoken
from valle_jax.hearing.alignment import Aligner

RATE = 16_000


_COLUMNS = (
    "corpus", "n", "own text aligned", "score, median [5 %, 95 %]", "reversed aligned", "score", "own above reversed",
    "other text aligned", "score", "CPU seconds per second",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AlignmentScores:
    """See the top of this file."""

    corpora: tyro.conf.Positional[tuple[str, ...]]
    """Folders or JSON lines files of recordings with transcripts."""
    limit: int = 40
    """Recordings of each."""
    min_words: int = 3
    """In a text: fewer have hardly another order."""
    max_seconds: float = 10.0
    """Of a recording."""

    def run(self) -> None:
        """Prints a table."""
        lines = [list(_COLUMNS), ["---"] * len(_COLUMNS), *(self._measure(path) for path in self.corpora)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def _measure(self, path: str) -> list[str]:
        aligner, corpus = Aligner(), Corpus.open(path)
        chosen = self._choose(corpus.recordings)
        scores = np.full((3, len(chosen)), -math.inf)
        seconds = cpu = 0.0
        for i, recording in enumerate(tqdm(chosen, desc=path)):
            samples = read_audio(corpus.root / recording.audio, RATE)
            texts = (recording.text, " ".join(recording.text.split()[::-1]), chosen[i - 1].text)
            start = time.process_time()
            for kind, text in enumerate(texts):
                alignment = aligner.align(samples, RATE, text)
                scores[kind, i] = -math.inf if alignment is None else alignment.score
                if kind == 0:
                    seconds, cpu = seconds + len(samples) / RATE, cpu + time.process_time() - start
        own, turned, other = map(_summary, scores)
        above = f"{(scores[0] > scores[1]).mean():.3f}"
        return [pathlib.Path(path).name, str(len(chosen)), *own, *turned, above, *other, f"{cpu / seconds:.2f}"]

    def _choose(self, recordings: Sequence[Spoken]) -> list[Spoken]:
        fitting = [r for r in recordings if r.seconds <= self.max_seconds and len(r.text.split()) >= self.min_words]
        return [fitting[i] for i in np.linspace(0, len(fitting) - 1, min(self.limit, len(fitting))).astype(int)]


def _summary(scores: np.ndarray) -> list[str]:
    aligned = scores[np.isfinite(scores)]
    low, middle, high = np.quantile(aligned, [0.05, 0.5, 0.95]) if len(aligned) else [math.nan] * 3
    return [f"{len(aligned) / len(scores):.3f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]"]


if __name__ == "__main__":
    tyro.cli(AlignmentScores, description=__doc__).run()
