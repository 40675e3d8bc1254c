"""What the quickstart's model says of unseen texts in unseen voices, beside what it should differ from and resemble."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from valle_jax.audio import read_audio
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.synthesizer import Options, Request, Synthesizer

# Digits leave little to choose: cool sampling, and lengths near those that the prompt's rate predicts.
OPTIONS = Options(
    sampling=Sampling(temperature=0.8, top_k=30, guidance=2.0),
    min_rate_ratio=0.6,
    max_rate_ratio=1.8,
    best_of=1,
    batch_size=16,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A test utterance: its text and recording, and a prompt of the same voice with another text.

    Attributes:
      name: of its files.
      speaker: whose voice it is.
      text: digit words.
      reference: how the voice says the text, float32 [samples].
      prompt: about 3 s of the voice, float32 [samples].
      prompt_text: what the prompt says.
    """

    name: str
    speaker: str
    text: str
    reference: np.ndarray
    prompt: np.ndarray
    prompt_text: str


@dataclasses.dataclass(frozen=True)
class Spoken:
    """One system's audio for the cases, in their order.

    Attributes:
      audio: float32 [samples] each.
      finished: whether each take ended by end of speech; None for what was not generated.
    """

    audio: list[np.ndarray]
    finished: list[bool] | None = None


def load_cases(folder: str | os.PathLike[str], sample_rate: int) -> list[Case]:
    """The test cases that `data_prep.synthetic` wrote, audio at `sample_rate`, the voices in turn."""
    folder = pathlib.Path(folder)
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Case(
            name=pathlib.Path(entry["audio"]).stem,
            speaker=entry["speaker"],
            text=entry["text"],
            reference=read_audio(folder / entry["audio"], sample_rate),
            prompt=read_audio(folder / entry["prompt"], sample_rate),
            prompt_text=entry["prompt_text"],
        )
        for entry in sorted(entries, key=lambda entry: entry["audio"])
        if "prompt" in entry
    ]


def speak(tts: Synthesizer, cases: Sequence[Case], seed: int, n_controls: int) -> dict[str, Spoken]:
    """All systems' audio for the cases; the controls that need another pass only for the first `n_controls` cases.

    `original`: the recordings. `codec`: their resynthesis, what a perfect model would give. `valle`: the model.
    Controls: `codebook_1`: the model without its NAR. `other_prompt`: the prompt of the next voice. `other_text`: the
    text of another case.
    """
    jobs = tts.jobs([Request(case.text, case.prompt, case.prompt_text) for case in cases], OPTIONS)
    takes = tts.generate(jobs, seed=seed, options=OPTIONS)
    codes, lengths = tts.codec.encode([case.reference for case in cases])
    audio = {
        "original": [case.reference for case in cases],
        "codec": _decode(tts, [row[:length] for row, length in zip(codes, lengths, strict=True)]),
        "valle": [audio.samples for audio in tts.decode(jobs, takes, seed=seed)],
    }
    spoken = {name: Spoken(samples) for name, samples in audio.items()}
    spoken["valle"] = Spoken(audio["valle"], [take.finished for take in takes])
    spoken["codebook_1"] = Spoken(_decode(tts, [take.codes[:, :1] for take in takes[:n_controls]]))
    followers = [*cases[1 : n_controls + 1], cases[0]][:n_controls]
    for name, requests in {
        "other_prompt": [Request(c.text, n.prompt, n.prompt_text) for c, n in zip(cases, followers, strict=False)],
        "other_text": [Request(n.text, c.prompt, c.prompt_text) for c, n in zip(cases, followers, strict=False)],
    }.items():
        said = tts.synthesize_batch(requests, seed=seed, options=OPTIONS)
        spoken[name] = Spoken([audio.samples for audio in said], [audio.info["finished"] for audio in said])
    return spoken


def _decode(tts: Synthesizer, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [tts.codec.decode(item[None])[0] for item in codes]
