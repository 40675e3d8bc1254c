"""From utterances to the padded arrays of the compiled samplers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, KIND_TEXT
from valle_jax.inference.generate import generate_ar, generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params
from valle_jax.text.vocabulary import EOS_ID


@dataclasses.dataclass(frozen=True)
class Job:
    """One utterance to generate.

    Attributes:
      phonemes: int32 [S], of the prompt's transcript and the text, without the end of text.
      prompt_codes: int32 [P, Q], the acoustic prompt.
      min_frames: end of speech is not drawn before.
      max_frames: drawing stops there.
    """

    phonemes: np.ndarray
    prompt_codes: np.ndarray
    min_frames: int
    max_frames: int

    @property
    def prefix_length(self) -> int:
        """Tokens before the first generated one, a begin-of-audio token not counted."""
        return len(self.phonemes) + 1 + len(self.prompt_codes)


@dataclasses.dataclass(frozen=True)
class Take:
    """One generated utterance: codes int32 [T, Q], whether it ended by end of speech, mean log-probability."""

    codes: np.ndarray
    finished: bool
    log_probability: float


def bucket(length: int, smallest: int = 64) -> int:
    """Rounds a length up so that few distinct ones remain: at most a quarter of it is padding."""
    step = max(smallest, 1 << max(0, length.bit_length() - 3))
    return -(-length // step) * step


def _rows(jobs: Sequence[Job], length: int) -> dict[str, np.ndarray]:
    """The text part of every row, [B, length]; the rest is padding."""
    batch = {name: np.zeros((len(jobs), length), np.int32) for name in ("token", "kind", "segment", "position")}
    for row, job in enumerate(jobs):
        text = slice(0, len(job.phonemes) + 1)
        batch["token"][row, text] = [*job.phonemes, EOS_ID]
        batch["kind"][row, text] = KIND_TEXT
        batch["segment"][row, text] = 1
        batch["position"][row, text] = np.arange(len(job.phonemes) + 1)
    return batch


def _add_acoustic(batch: dict[str, np.ndarray], row: int, job: Job, count: int) -> slice:
    """Marks `count` acoustic tokens behind the text of a row and returns where they are."""
    where = slice(len(job.phonemes) + 1, len(job.phonemes) + 1 + count)
    batch["kind"][row, where] = KIND_ACOUSTIC
    batch["segment"][row, where] = 1
    batch["position"][row, where] = np.arange(count)
    return where


def ar_batch(jobs: Sequence[Job], decoder: Decoder) -> dict[str, np.ndarray]:
    """Prefixes for `generate_ar`, padded to a length bucket."""
    bos = [decoder.config.codebook_size + 1] * decoder.config.prepend_bos
    batch = _rows(jobs, bucket(max(job.prefix_length for job in jobs) + len(bos)))
    for row, job in enumerate(jobs):
        tokens = [*bos, *job.prompt_codes[:, 0]]
        batch["token"][row, _add_acoustic(batch, row, job, len(tokens))] = tokens
    return batch


def nar_batch(jobs: Sequence[Job], first_codebook: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Rows for `generate_nar`: `first_codebook` int [T] are each job's codes of codebook 1."""
    lengths = [job.prefix_length + len(codes) for job, codes in zip(jobs, first_codebook, strict=True)]
    batch = _rows(jobs, bucket(max(lengths)))
    batch["codes"] = np.zeros((*batch["token"].shape, jobs[0].prompt_codes.shape[1]), np.int32)
    for row, (job, codes) in enumerate(zip(jobs, first_codebook, strict=True)):
        prompt_frames = len(job.prompt_codes)
        where = _add_acoustic(batch, row, job, prompt_frames + len(codes))
        batch["kind"][row, where.start : where.start + prompt_frames] = KIND_PROMPT
        batch["codes"][row, where.start : where.start + prompt_frames] = job.prompt_codes
        batch["codes"][row, where.start + prompt_frames : where.stop, 0] = codes
    return batch


def _padded(jobs: Sequence[Job], size: int) -> list[Job]:
    """Jobs repeated from the first on to a full batch, so that the batch size does not recompile."""
    return [*jobs, *[jobs[0]] * (size - len(jobs))]


def _chunks(jobs: Sequence[Job], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length."""
    order = sorted(range(len(jobs)), key=lambda i: jobs[i].prefix_length + jobs[i].max_frames)
    yield from (order[i : i + batch_size] for i in range(0, len(order), batch_size))


def generate(
    jobs: Sequence[Job],
    ar: tuple[Decoder, Params],
    nar: tuple[Decoder, Params],
    keys: jax.Array,
    sampling: Sampling,
    batch_size: int = 16,
) -> list[Take]:
    """Generates all jobs, in batches of similar length; `keys` are one random key per job."""
    takes: dict[int, Take] = {}
    for indices in _chunks(jobs, batch_size):
        chosen = [jobs[i] for i in indices]
        size = 1 << (len(chosen) - 1).bit_length()
        rows = _padded(chosen, size)
        limits = np.array([[job.min_frames, job.max_frames] for job in rows], np.int32)
        # The filling rows have a limit of 0 frames: they never keep the loop running.
        limits[len(chosen) :] = 0
        out = generate_ar(
            *ar,
            ar_batch(rows, ar[0]),
            keys[np.array([*indices, *[indices[0]] * (size - len(chosen))])],
            *limits.T,
            sampling=sampling,
            max_frames=bucket(int(limits.max())),
        )
        out = jax.device_get(out)
        first = [codes[:length] for codes, length in zip(out.codes, out.length, strict=True)]
        codes = np.asarray(generate_nar(*nar, nar_batch(rows, first)))
        for row, i in enumerate(indices):
            start = jobs[i].prefix_length
            takes[i] = Take(
                codes[row, start : start + len(first[row])],
                bool(out.finished[row]),
                float(out.log_probability[row]),
            )
    return [takes[i] for i in range(len(jobs))]
