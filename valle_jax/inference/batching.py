"""From utterances to the padded arrays of the compiled samplers, and back."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from valle_jax.config import ModelConfig
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PROMPT, KIND_STAGE, KIND_TEXT, mark_tokens, text_positions
from valle_jax.errors import UserError
from valle_jax.inference.generate import MOST_PROBABLE, Filling, generate_ar, generate_nar
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params


@dataclasses.dataclass(frozen=True)
class Job:
    """One utterance to generate.

    Attributes:
      text: int32 [S], the tokens of the prompt's transcript and of the text, and what closes them.
      prompt_codes: int32 [P, Q], the acoustic prompt.
      min_frames: end of speech is not drawn before.
      max_frames: drawing stops there.
      prompt_tokens: how many of the text's tokens, with what separates them, are the prompt's transcript; 0 where
        prompt and text are one utterance.
      language: of the text, for models with language embeddings.
      expected_frames: length that the prompt's speaking rate predicts; None: not known.
      words: the text as it was written, by which takes are judged; None: not known.
      unknown: phoneme symbols, of the prompt's transcript and of the text, that the model has no token for.
    """

    text: np.ndarray
    prompt_codes: np.ndarray
    min_frames: int
    max_frames: int
    prompt_tokens: int = 0
    language: int = 0
    expected_frames: int | None = None
    words: str | None = None
    unknown: tuple[str, ...] = ()

    @property
    def continues(self) -> bool:
        """Whether the text begins with what the prompt says (VALL-E-continual)."""
        return self.prompt_tokens == 0 and len(self.prompt_codes) > 0

    @property
    def prefix_length(self) -> int:
        """Phonemes and frames before the first generated one."""
        return len(self.text) + len(self.prompt_codes)


@dataclasses.dataclass(frozen=True)
class Take:
    """One generated utterance.

    Attributes:
      codes: int32 [T, 1] or [T, Q].
      finished: whether it ended by itself.
      log_probability: mean over the codes and the end.
    """

    codes: np.ndarray
    finished: bool
    log_probability: float


LENGTH_WEIGHT = 2.0  # nats per code, for a length e times off: 10 % weigh 0.2


def most_probable(job: Job, takes: Sequence[Take]) -> Take:
    """The best take by its codes: one that ended by itself, of a high log-probability and a plausible length.

    The mean log-probability alone prefers drawn-out speech. From it goes `LENGTH_WEIGHT` times the distance, in
    logarithms, of the length from what the prompt's speaking rate predicts.
    """

    def order(take: Take) -> tuple[bool, float]:
        length = max(1, len(take.codes))
        distance = abs(math.log(length / (job.expected_frames or length)))
        return take.finished, take.log_probability - LENGTH_WEIGHT * distance

    return max(takes, key=order)


def bucket(length: int, smallest: int = 64) -> int:
    """Rounds a length up so that few distinct ones remain: at most a quarter of it is padding."""
    step = max(smallest, 1 << max(0, length.bit_length() - 3))
    return -(-length // step) * step


def target_frames(length: int, most: int) -> int:
    """Frames that `generate_nar` is to compute of rows of a length: half of the row where it holds `most`, or all.

    So a length has two programs at most, and the shortest has one.
    """
    half = bucket(length // 2)
    return half if most <= half else length


def _rows(jobs: Sequence[Job], length: int, config: ModelConfig) -> dict[str, np.ndarray]:
    """The text part of every row, [B, length]; the rest is padding."""
    names = ["token", "kind", "segment", "position", *["language"] * bool(config.n_languages)]
    batch = {name: np.zeros((len(jobs), length), np.int32) for name in names}
    batch["token"] = np.zeros((len(jobs), length * config.codes_per_step), np.int32)
    for row, job in enumerate(jobs):
        text = slice(0, len(job.text))
        batch["token"][row].reshape(length, -1)[text, 0] = job.text
        batch["kind"][row, text] = KIND_TEXT
        batch["segment"][row, text] = 1
        if config.n_languages:
            batch["language"][row, text] = job.language
        said = [count for count in (job.prompt_tokens, len(job.text) - job.prompt_tokens) if count]
        batch["position"][row, text] = text_positions(said, [len(job.prompt_codes)], config)
    return batch


def _add_acoustic(batch: dict[str, np.ndarray], row: int, job: Job, count: int, config: ModelConfig) -> slice:
    """Marks `count` acoustic tokens behind the text of a row and returns where they are."""
    where = slice(len(job.text), len(job.text) + count)
    batch["kind"][row, where] = KIND_ACOUSTIC
    batch["segment"][row, where] = 1
    batch["position"][row, where] = config.codes_per_step * np.arange(count)
    return where


def ar_prefix_length(job: Job, config: ModelConfig) -> int:
    """Tokens of a job in `ar_batch`, padding not counted."""
    return len(job.text) + mark_tokens(config) + len(job.prompt_codes) // config.codes_per_step


def within(job: Job, max_tokens: int, config: ModelConfig) -> Job:
    """A job that draws no more frames than there is room for in so many tokens; UserError where that is too few."""
    room = max_tokens - job.prefix_length - mark_tokens(config)
    if room <= job.min_frames:
        raise UserError(f"prompt, texts and speech need more than the {max_tokens} tokens that there are")
    return dataclasses.replace(job, max_frames=min(job.max_frames, room))


def ar_batch(jobs: Sequence[Job], decoder: Decoder) -> dict[str, np.ndarray]:
    """Prefixes for `generate_ar`, padded to a length bucket; where groups do not divide a prompt, it starts later."""
    config = decoder.config
    G = config.codes_per_step
    jobs = [dataclasses.replace(job, prompt_codes=job.prompt_codes[len(job.prompt_codes) % G :]) for job in jobs]
    bos = [config.codebook_size + 1] * G * config.prepend_bos
    batch = _rows(jobs, bucket(max(ar_prefix_length(job, config) for job in jobs)), config)
    for row, job in enumerate(jobs):
        groups = np.reshape([*bos, *job.prompt_codes[:, 0]], (-1, G))
        batch["token"][row].reshape(-1, G)[_add_acoustic(batch, row, job, len(groups), config)] = groups
    return batch


def nar_batch(
    jobs: Sequence[Job],
    first_codebook: Sequence[np.ndarray],
    config: ModelConfig,
    frozen: Sequence[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Rows for `generate_nar`: `first_codebook` int [T] are each job's codes of codebook 1.

    Where all codebooks of the first frames are known, `frozen` int [F, Q], these are shown as frames of the prompt.
    """
    lengths = [job.prefix_length + len(codes) for job, codes in zip(jobs, first_codebook, strict=True)]
    batch = _rows(jobs, bucket(max(lengths) + mark_tokens(config)), config)
    batch["codes"] = np.zeros((*batch["token"].shape, jobs[0].prompt_codes.shape[1]), np.int32)
    for row, (job, codes) in enumerate(zip(jobs, first_codebook, strict=True)):
        prompt_frames = len(job.prompt_codes)
        start = _add_acoustic(batch, row, job, prompt_frames + len(codes) + mark_tokens(config), config).start
        target = start + prompt_frames
        end = target + len(codes)
        batch["kind"][row, start:target] = KIND_PROMPT
        batch["kind"][row, end : end + mark_tokens(config)] = KIND_STAGE
        batch["codes"][row, start:target] = job.prompt_codes
        batch["codes"][row, target:end, 0] = codes
        if frozen is not None:
            known = slice(target, target + len(frozen[row]))
            batch["kind"][row, known] = KIND_PROMPT
            batch["codes"][row, known] = frozen[row]
    return batch


def _chunks(lengths: Sequence[int], batch_size: int) -> Iterator[tuple[list[int], int]]:
    """Indices in batches of similar length, and the batch size to fill them up to, a power of two."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, 1 << (len(indices) - 1).bit_length()


def take_keys(seed: int, utterances: Sequence[int], takes: range) -> jax.Array:
    """Keys [utterances, takes]: that of take n of utterance i follows from the seed, i and n alone."""
    fold_in = jax.random.fold_in
    of_utterance = jax.vmap(fold_in, (None, 0))(jax.random.key(seed), np.asarray(utterances, np.uint32))
    return jax.vmap(jax.vmap(fold_in, (None, 0)), (0, None))(of_utterance, np.arange(takes.start, takes.stop))


def sample_first_codebook(
    jobs: Sequence[Job], ar: tuple[Decoder, Params], keys: jax.Array, sampling: Sampling, batch_size: int = 16
) -> list[Take]:
    """Draws codebook 1 of N takes of every job, one after the other, in batches of jobs of similar length.

    `keys` [jobs N] are the takes' random keys. The prefix of a job is computed once for all its takes, which are drawn
    side by side; `batch_size` counts takes.
    """
    if not jobs:
        return []
    takes: dict[int, list[Take]] = {}
    keys_JN = keys.reshape(len(jobs), -1)
    n_takes = keys_JN.shape[1]
    lengths = [job.prefix_length + job.max_frames for job in jobs]
    for indices, size in _chunks(lengths, max(1, batch_size // n_takes)):
        chosen = indices + indices[:1] * (size - len(indices))  # filled up, so that its size does not recompile
        rows = [jobs[i] for i in chosen]
        limits = np.array([[job.min_frames, job.max_frames] for job in rows], np.int32)
        limits[len(indices) :] = 0  # the filling rows never keep the loop running
        most = bucket(int(limits.max()))
        prefixes = ar_batch(rows, ar[0])
        keys = keys_JN[np.array(chosen)].reshape(-1)
        out = generate_ar(*ar, prefixes, keys, *limits.T, sampling=sampling, max_frames=most)
        out = jax.device_get(out)
        for row, i in enumerate(indices):
            takes[i] = [
                Take(out.codes[r, : out.length[r], None], bool(out.finished[r]), float(out.log_probability[r]))
                for r in range(row * n_takes, (row + 1) * n_takes)
            ]
    return [take for i in range(len(jobs)) for take in takes[i]]


def fill_codebooks(
    jobs: Sequence[Job],
    first_codebook: Sequence[np.ndarray],
    nar: tuple[Decoder, Params],
    batch_size: int = 16,
    filling: Filling = MOST_PROBABLE,
    frozen: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """All codebooks, int32 [T, Q], of jobs whose codebook 1 is given, int [T] each; see `generate_nar`.

    The frames in `frozen`, int [F, Q] each, stay as they are: see `nar_batch`.
    """
    filled: dict[int, np.ndarray] = {}
    lengths = [job.prefix_length + len(codes) for job, codes in zip(jobs, first_codebook, strict=True)]
    for indices, size in _chunks(lengths, batch_size):
        chosen = indices + indices[:1] * (size - len(indices))
        known = None if frozen is None else [frozen[i] for i in chosen]
        rows = nar_batch([jobs[i] for i in chosen], [first_codebook[i] for i in chosen], nar[0].config, known)
        targets = [len(first_codebook[i]) - (0 if frozen is None else len(frozen[i])) for i in chosen]
        frames = target_frames(rows["segment"].shape[1], max(targets))
        codes = np.asarray(generate_nar(*nar, rows, filling, frames=frames))
        for row, i in enumerate(indices):
            filled[i] = codes[row, jobs[i].prefix_length : lengths[i]]
    return [filled[i] for i in range(len(jobs))]


def generate(
    jobs: Sequence[Job],
    ar: tuple[Decoder, Params],
    nar: tuple[Decoder, Params],
    keys: jax.Array,
    sampling: Sampling,
    batch_size: int = 16,
    filling: Filling = MOST_PROBABLE,
) -> list[Take]:
    """The most probable take (`most_probable`) of every job.

    `keys` [jobs, N] are the random keys of the N takes of each job. The NAR only sees the best takes; for
    `filling` see `generate_nar`.
    """
    drawn = iter(sample_first_codebook(jobs, ar, keys.reshape(-1), sampling, batch_size))
    best = [most_probable(job, list(itertools.islice(drawn, keys.shape[1]))) for job in jobs]
    filled = fill_codebooks(jobs, [take.codes[:, 0] for take in best], nar, batch_size, filling)
    return [dataclasses.replace(take, codes=codes) for take, codes in zip(best, filled, strict=True)]
