"""What the quickstart's model says of unseen texts in unseen voices, beside what it should differ from and resemble."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from valle_jax.audio import read_audio
from valle_jax.codec.base import pad_codes
from valle_jax.configs import get_options
from valle_jax.inference.synthesizer import Request, Synthesizer

TAKES = 4  # of each text, of which the most probable one counts


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
    Controls: `codebook_1`: the model without its NAR, for every case. `other_prompt`: the prompt of the next voice.
    `other_text`: the text of another case.
    """
    followers = [*cases[1 : n_controls + 1], cases[0]][:n_controls]
    pairs = list(zip(cases, followers, strict=False))
    requests = [Request(case.text, case.prompt, case.prompt_text) for case in cases]
    other_prompt = [Request(case.text, next_.prompt, next_.prompt_text) for case, next_ in pairs]
    other_text = [Request(next_.text, case.prompt, case.prompt_text) for case, next_ in pairs]
    # All in one go: fewer shapes to compile, fuller batches.
    options = dataclasses.replace(get_options("digits"), best_of=TAKES)
    jobs = tts.jobs([*requests, *other_prompt, *other_text], options)
    takes = tts.generate(jobs, seed=seed, options=options)
    said = tts.decode(jobs, takes, seed=seed)

    def spoken(part: slice) -> Spoken:
        return Spoken([audio.samples for audio in said[part]], [audio.info["finished"] for audio in said[part]])

    first, second = len(cases), len(cases) + len(pairs)
    codes, lengths = tts.codec.encode([case.reference for case in cases])
    return {
        "original": Spoken([case.reference for case in cases]),
        "codec": Spoken(tts.codec.decode(codes, lengths)),
        "valle": spoken(slice(first)),
        "codebook_1": Spoken(tts.codec.decode(*pad_codes([take.codes[:, :1] for take in takes[:first]], 1))),
        "other_prompt": spoken(slice(first, second)),
        "other_text": spoken(slice(second, None)),
    }
