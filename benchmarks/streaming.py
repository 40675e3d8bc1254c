"""Streaming against the same utterances made at once: time to first audio, agreement, and whether playback would stall.

    python benchmarks/streaming.py MODEL_DIR --prompt voice.wav --prompt-text "three five" --text "seven two one nine"

A row is a lookahead, with medians over seeds, after a first run that compiles. Agreement is the share of equal codes.
The mel distortion is between the stream's audio and that of the same seed at once; for scale, the last row compares
utterances of different seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import platform
import time

import jax
import numpy as np
import tyro

from valle_jax.configs import get_options
from valle_jax.evaluation.spectral import mel_distortion
from valle_jax.inference.streaming import AudioChunk, Pace
from valle_jax.inference.synthesizer import Audio, Options, Synthesizer

_COLUMNS = (
    "lookahead", "first audio, s", "whole, s", "speech, s", "stall, s", "codebook 1 equal", "codebooks 2..Q agree",
    "mel distortion, dB",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Streaming:
    """See the top of this file."""

    model: tyro.conf.Positional[str]
    """Model directory."""
    text: str
    """What to say."""
    prompt: str
    """Audio file of the voice."""
    prompt_text: str
    """What the prompt says."""
    lookahead_frames: tuple[int, ...] = (0, 6, 12, 24, 48)
    """One row each."""
    first_frames: int = 24
    """Of the first chunk."""
    chunk_frames: int = 96
    """Of the longest chunk."""
    seeds: int = 8
    """Utterances per row."""
    preset: str | None = None
    """Preset whose sampling options are used, such as `digits`; default: those of `valle synthesize`."""

    def run(self) -> None:
        """Prints a table."""
        tts = Synthesizer.load(self.model)
        voice = tts.voice(self.prompt, self.prompt_text)
        options = get_options(self.preset) if self.preset else Options()
        options = dataclasses.replace(options, tries=1)  # as a stream

        def at_once(seed: int) -> tuple[Audio, float]:
            start = time.perf_counter()
            audio = tts.synthesize(self.text, prompt=voice, seed=seed, options=options)
            return audio, time.perf_counter() - start

        def streamed(seed: int, pace: Pace) -> tuple[list[AudioChunk], list[float]]:
            start = time.perf_counter()
            timed = [
                (chunk, time.perf_counter() - start)
                for chunk in tts.stream(self.text, prompt=voice, seed=seed, options=options, pace=pace)
            ]
            return [chunk for chunk, _ in timed], [seconds for _, seconds in timed]

        wholes = [(at_once(seed), at_once(seed))[1] for seed in range(self.seeds)]
        rows = [list(_COLUMNS), ["---"] * len(_COLUMNS)]
        seconds = float(np.median([seconds for _, seconds in wholes]))
        speech = float(np.median([audio.info["seconds"] for audio, _ in wholes]))
        rows.append(["at once", f"{seconds:.2f}", f"{seconds:.2f}", f"{speech:.2f}", "", "", "", ""])
        for frames in self.lookahead_frames:
            pace = Pace(self.first_frames, self.chunk_frames, frames)
            values = []
            for seed, (audio, _) in enumerate(wholes):
                streamed(seed, pace)  # compiles what this length needs
                chunks, times = streamed(seed, pace)
                codes = np.concatenate([chunk.codes for chunk in chunks])
                same = codes.shape == audio.codes.shape and (codes[:, 0] == audio.codes[:, 0]).all()
                agree = (codes[:, 1:] == audio.codes[:, 1:]).mean() if same else np.nan
                distortion = mel_distortion(audio.samples, np.concatenate([chunk.samples for chunk in chunks]))
                values.append(
                    (times[0], times[-1], audio.info["seconds"], _stall(chunks, times), same, agree, distortion)
                )
            *columns, same, agree, distortion = zip(*values, strict=True)
            medians = [f"{np.median(column):.2f}" for column in columns]
            equal = f"{sum(same)} of {len(same)}"
            rows.append([str(frames), *medians, equal, f"{np.median(agree):.3f}", f"{np.median(distortion):.2f}"])
        pairs = itertools.pairwise([audio.samples for audio, _ in wholes])
        others = np.median([mel_distortion(a, b) for a, b in pairs]) if self.seeds > 1 else np.nan
        rows.append(["another seed", "", "", "", "", "", "", f"{others:.2f}"])
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        print(f"\n{self.seeds} seeds; {jax.devices()[0].device_kind}, {platform.machine()}")


def _stall(chunks: list[AudioChunk], times: list[float]) -> float:
    """Seconds that a player, which starts with the first chunk, waits for later ones."""
    played, waited = times[0], 0.0
    for chunk, there in zip(chunks, times, strict=True):
        waited += max(0.0, there - played)
        played = max(played, there) + len(chunk.samples) / chunk.sample_rate
    return waited


if __name__ == "__main__":
    tyro.cli(Streaming, description=__doc__).run()
