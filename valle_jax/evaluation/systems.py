"""The rows of a table: what each system says for a trial."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from valle_jax.audio import read_audio
from valle_jax.codec.base import Codec, pad_codes
from valle_jax.evaluation.trials import Trial
from valle_jax.inference.batching import Job, Take, sample_first_codebook
from valle_jax.inference.synthesizer import CONTEXT_FRAMES, Options, Request, Synthesizer

RERANKED_TAKES = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """A trial with its audio, float32 [samples] at the codec's rate."""

    trial: Trial
    reference: np.ndarray
    prompt: np.ndarray

    @classmethod
    def load(cls, trial: Trial, root: pathlib.Path, sample_rate: int) -> Material:
        """Reads both recordings; UserError where one cannot be read."""
        prompt = read_audio(root / trial.prompt_audio, sample_rate)
        return cls(
            trial, read_audio(root / trial.audio, sample_rate), prompt[: round(trial.prompt_seconds * sample_rate)]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """What a system said.

    Attributes:
      audio: float32 [samples]; where a prompt is continued, with the prompt (through the codec) before it.
      info: of generated speech, as `Audio.info`.
    """

    audio: np.ndarray
    info: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class System:
    """A row.

    Attributes:
      label: in tables.
      baseline: system that it is compared with.
      say: audio for requested trials; None for what others' audio is chosen from.
      plan: name of what `say` does: audio of equal plans and requests is the same.
      request: what is asked for in place of each trial of a setting, or None where that would be the trial itself;
        None: the trials themselves.
      sampled: whether the seed matters.
      continues: whether there is such a row where prompts are the utterance's own beginning.
    """

    label: str
    baseline: str | None
    say: Callable[[Voice, Sequence[Material], int], list[Said]] | None
    plan: str
    request: Callable[[Sequence[Trial]], list[Trial | None]] | None = None
    sampled: bool = True
    continues: bool = True


class Voice:
    """A model and how it is to speak.

    Attributes:
      tts: the model.
      options: decoding rules; `best_of` must be 1: rows that choose among takes say so.
    """

    def __init__(self, tts: Synthesizer, options: Options):
        self.tts = tts
        self.options = options

    @property
    def codec(self) -> Codec:
        """The model's codec."""
        return self.tts.codec

    def jobs(self, materials: Sequence[Material]) -> list[Job]:
        """What the synthesizer makes of the trials."""
        requests = [Request(m.trial.text, m.prompt, m.trial.prompt_text) for m in materials]
        return self.tts.jobs(requests, self.options)

    def sample(self, materials: Sequence[Material], jobs: Sequence[Job], seed: int) -> list[Take]:
        """Codebook 1, drawn with a key of the trial and the seed: it does not depend on the other trials."""
        ids = [int(hashlib.sha256(m.trial.id.encode()).hexdigest()[:8], 16) for m in materials]
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(np.array(ids, np.uint32))
        return sample_first_codebook(jobs, self.tts.ar, keys, self.options.sampling, self.options.batch_size)

    def fill(self, jobs: Sequence[Job], first: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All codebooks [T, Q] of frames whose codebook 1 is given."""
        return self.tts.fill(jobs, first, self.options)

    def finish(self, materials: Sequence[Material], jobs: Sequence[Job], takes: Sequence[Take]) -> list[Said]:
        """Audio of takes with all codebooks; where a prompt was continued, with the prompt before it."""
        info = self.codec.info
        contexts = [
            job.prompt_codes if m.trial.continues else job.prompt_codes[-CONTEXT_FRAMES:]
            for m, job in zip(materials, jobs, strict=True)
        ]
        wholes = [np.concatenate([context, take.codes]) for context, take in zip(contexts, takes, strict=True)]
        decoded = self.codec.decode(*pad_codes(wholes, info.codebooks))
        said = []
        for m, context, take, samples in zip(materials, contexts, takes, decoded, strict=True):
            head = round(len(context) * info.sample_rate / info.frames_per_second)
            facts = {
                "frames": len(take.codes),
                "seconds": (len(samples) - head) / info.sample_rate,
                "finished": take.finished,
                "log_probability": take.log_probability,
                "problems": [] if take.finished else ["no_end_of_speech"],
            }
            said.append(Said(samples if m.trial.continues else samples[head:], facts))
        return said


def _ground_truth(_: Voice, materials: Sequence[Material], __: int) -> list[Said]:
    return [Said(m.reference, {}) for m in materials]


def resynthesise(codec: Codec, audio: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Audio through the codec."""
    return codec.decode(*codec.encode(audio))


def _codec(voice: Voice, materials: Sequence[Material], _: int) -> list[Said]:
    return [Said(audio, {}) for audio in resynthesise(voice.codec, [m.reference for m in materials])]


def _valle(voice: Voice, materials: Sequence[Material], seed: int) -> list[Said]:
    jobs = voice.jobs(materials)
    takes = voice.sample(materials, jobs, seed)
    codes = voice.fill(jobs, [take.codes[:, 0] for take in takes])
    return voice.finish(materials, jobs, [dataclasses.replace(t, codes=c) for t, c in zip(takes, codes, strict=True)])


def _ar_without_prompt(voice: Voice, materials: Sequence[Material], seed: int) -> list[Said]:
    """The AR sees the text alone; the NAR has the prompt as always, with its transcript (P1, section 5.2, table 5)."""
    jobs = voice.jobs(materials)
    texts = voice.tts.phonemes([m.trial.text for m in materials])
    bare = [
        dataclasses.replace(
            job,
            text=voice.tts.model.vocabulary.compose(None, text)[0],
            prompt_codes=job.prompt_codes[:0],
            prompt_tokens=0,
        )
        for job, text in zip(jobs, texts, strict=True)
    ]
    takes = voice.sample(materials, bare, seed)
    codes = voice.fill(jobs, [take.codes[:, 0] for take in takes])
    return voice.finish(materials, jobs, [dataclasses.replace(t, codes=c) for t, c in zip(takes, codes, strict=True)])


def _nar(voice: Voice, materials: Sequence[Material], _: int) -> list[Said]:
    """Codebook 1 of the recording, the others by the NAR."""
    jobs = voice.jobs(materials)
    codes, lengths = voice.codec.encode([m.reference for m in materials])
    starts = [len(job.prompt_codes) if m.trial.continues else 0 for m, job in zip(materials, jobs, strict=True)]
    first = [codes[i, start : lengths[i], 0].astype(np.int32) for i, start in enumerate(starts)]
    filled = voice.fill(jobs, first)
    said = voice.finish(materials, jobs, [Take(c, True, 0.0) for c in filled])
    # Nothing else that is known of a take is the model's own.
    facts = [{"frames": len(c), "correct": _correct(c, codes[i, : lengths[i]])} for i, c in enumerate(filled)]
    return [Said(s.audio, fact) for s, fact in zip(said, facts, strict=True)]


def _correct(filled_TQ: np.ndarray, true_TQ: np.ndarray) -> list[int]:
    """How many codes of codebooks 2..Q are the recording's, whose last frames are meant."""
    return (filled_TQ == true_TQ[len(true_TQ) - len(filled_TQ) :])[:, 1:].sum(axis=0).tolist()


def _next(trials: Sequence[Trial], i: int, field: str) -> Trial | None:
    """The next trial, in a circle, that differs from trial i in a field."""
    return next((t for t in (*trials[i + 1 :], *trials[:i]) if getattr(t, field) != getattr(trials[i], field)), None)


def _other_speaker(trials: Sequence[Trial]) -> list[Trial | None]:
    """Each with the prompt of the next trial of another speaker."""
    fields = ("prompt_audio", "prompt_seconds", "prompt_text", "prompt_hash")
    others = [_next(trials, i, "speaker") for i in range(len(trials))]
    return [
        other and dataclasses.replace(trial, **{name: getattr(other, name) for name in fields})
        for trial, other in zip(trials, others, strict=True)
    ]


def _other_text(trials: Sequence[Trial]) -> list[Trial | None]:
    """Each with the next other text."""
    others = [_next(trials, i, "text") for i in range(len(trials))]
    return [other and dataclasses.replace(trial, text=other.text) for trial, other in zip(trials, others, strict=True)]


SYSTEMS = {
    "ground-truth": System("ground truth", None, _ground_truth, "ground-truth", sampled=False),
    "codec": System("codec resynthesis", "ground-truth", _codec, "codec", sampled=False),
    "valle": System("VALL-E", "codec", _valle, "valle"),
    "nar": System("NAR from true codebook 1", "codec", _nar, "nar", sampled=False),
    "ar-no-prompt": System("AR without acoustic prompt", "valle", _ar_without_prompt, "ar-no-prompt", continues=False),
    "best-of-5": System("VALL-E, best of 5", "valle", None, "valle"),
    "other-speaker": System(
        "control: prompt of another speaker", "valle", _valle, "valle", request=_other_speaker, continues=False
    ),
    "other-text": System(
        "control: text of another trial", "valle", _valle, "valle", request=_other_text, continues=False
    ),
}
