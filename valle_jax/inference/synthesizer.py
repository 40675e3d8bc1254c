"""Text and a voice prompt to audio."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from valle_jax.audio import read_audio
from valle_jax.codec import get_codec
from valle_jax.codec.base import pad_codes
from valle_jax.errors import UserError
from valle_jax.inference.batching import (
    Job,
    Take,
    fill_codebooks,
    generate,
    most_probable,
    sample_first_codebook,
    take_keys,
)
from valle_jax.inference.generate import Filling
from valle_jax.inference.model_dir import ModelDir, load_model_dir
from valle_jax.inference.ranking import choose
from valle_jax.inference.request import Audio, Options, Request
from valle_jax.inference.streaming import CONTEXT_FRAMES, AudioChunk, Pace, stream
from valle_jax.inference.takes import describe
from valle_jax.inference.voice import Voice
from valle_jax.model import build
from valle_jax.text.token_table import TokenTable

MIN_PROMPT_SECONDS = 0.5
SILENCE = 1e-3  # peak amplitude below which a prompt is called silent
SYMBOLS_PER_SECOND = 14  # phonemes, stresses and spaces of read English: the rate of a prompt without a transcript


class Synthesizer:
    """A model directory ready to speak. `valle_jax.load` makes one.

    Attributes:
      model: the model directory.
      codec: its codec.
      language: of what it says, as espeak-ng names it.
      ar: the AR decoder and its parameters, on the device.
      nar: the NAR decoder and its parameters, on the device.
    """

    def __init__(self, model: ModelDir, *, language: str = "en-us", codec_weights: str | None = None):
        from valle_jax.text.phonemizer import Phonemizer

        self.model = model
        self.codec = get_codec(model.codec.name, codec_weights)
        self.codec.info.check_same(model.codec, "the installed codec", "the model")
        self.language = language
        self._phonemize = Phonemizer(language)
        self._language = model.vocabulary.language_id(language) if isinstance(model.vocabulary, TokenTable) else 0
        self.ar = build(model.config_ar), jax.device_put(model.params_ar)
        self.nar = build(model.config_nar), jax.device_put(model.params_nar)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, language: str = "en-us", codec_weights: str | None = None):
        """Reads a model directory; UserError where it is incomplete or its codec is not the installed one."""
        return cls(load_model_dir(pathlib.Path(path)), language=language, codec_weights=codec_weights)

    def synthesize(
        self,
        text: str,
        *,
        prompt: str | os.PathLike[str] | np.ndarray | Voice,
        prompt_text: str | None = None,
        seed: int = 0,
        options: Options = Options(),
    ) -> Audio:
        """Says `text` in the voice of `prompt`.

        Raises:
          UserError: the text or the prompt's transcript has no phonemes, or the prompt is unreadable, silent, too
            short, or together with the text longer than what the model was trained on.
        """
        return self.synthesize_batch([Request(text, prompt, prompt_text)], seed=seed, options=options)[0]

    def stream(
        self,
        text: str,
        *,
        prompt: str | os.PathLike[str] | np.ndarray | Voice,
        prompt_text: str | None = None,
        seed: int = 0,
        options: Options = Options(),
        pace: Pace = Pace(),
    ) -> Iterator[AudioChunk]:
        """Says `text` in the voice of `prompt` and yields it in chunks, while it is being drawn; the last has the info.

        Codebook 1 is that of `synthesize` with one try and the same seed. A chunk that was yielded is not changed, so a
        bad take cannot be drawn again: its problems are named.

        Raises:
          UserError: as `synthesize`, at once; or `best_of` is not 1.
        """
        return stream(self, Request(text, prompt, prompt_text), seed=seed, options=options, pace=pace)

    def synthesize_batch(
        self,
        requests: Sequence[Request],
        *,
        seed: int = 0,
        options: Options = Options(),
        first: int = 0,
    ) -> list[Audio]:
        """Says many texts; take n of utterance i draws from the key (seed, first + i, n), whatever its neighbours.

        Bad takes are drawn again, `options.tries` times in all; what is bad even then says so in `info["problems"]`.
        """
        jobs = self.jobs(requests, options)
        audios: dict[int, Audio] = {}
        again = list(range(len(jobs)))
        for number in range(options.tries):
            if not again:
                break
            some, ids = [jobs[i] for i in again], [first + i for i in again]
            takes = self.draw(some, ids, seed=seed, options=options, number=number)
            tried = self.finish(some, takes, options=options, seed=seed)
            for audio in tried:
                audio.info["tries"] = number + 1
            audios |= zip(again, tried, strict=True)
            again = [i for i in again if audios[i].info["problems"]]
        return [audios[i] for i in range(len(jobs))]

    def jobs(self, requests: Sequence[Request], options: Options) -> list[Job]:
        """Phonemizes the texts, encodes the prompts and sets the limits of every request."""
        texts = self._symbols([request.text for request in requests])
        prompts = self._prompts(requests)
        jobs = []
        for request, (text, unknown), (said, prompt_unknown, codes) in zip(requests, texts, prompts, strict=True):
            if said is None:
                expected = len(text) / SYMBOLS_PER_SECOND * self.codec.info.frames_per_second
                spoken = len(codes)
            else:
                expected = len(codes) * len(text) / len(said)
                spoken = 0
            tokens, prompt_tokens = self.model.vocabulary.compose(said, text)
            job = Job(
                text=tokens,
                prompt_codes=codes.astype(np.int32),
                min_frames=max(0, int(options.min_rate_ratio * expected) - spoken),
                max_frames=max(1, int(options.max_rate_ratio * expected) - spoken),
                prompt_tokens=prompt_tokens,
                language=self._language,
                expected_frames=max(1, round(expected) - spoken),
                words=request.text,
                unknown=tuple(sorted(unknown | prompt_unknown)),
            )
            self._check_length(job)
            jobs.append(job)
        return jobs

    def _prompts(self, requests: Sequence[Request]) -> list[tuple[np.ndarray | None, set[str], np.ndarray]]:
        """The symbols of what each prompt says, None where it begins the text; unknown ones; its codes [P, Q]."""
        audio = [self._prompt(r.prompt) for r in requests if not isinstance(r.prompt, Voice)]
        codes, lengths = self.codec.encode(audio) if audio else ((), ())
        encoded = (item[:length] for item, length in zip(codes, lengths, strict=True))
        texts = [r.prompt_text for r in requests if not isinstance(r.prompt, Voice) and r.prompt_text is not None]
        said = iter(self._symbols(texts))
        prompts: list[tuple[np.ndarray | None, set[str], np.ndarray]] = []
        for request in requests:
            if isinstance(request.prompt, Voice):
                request.prompt.codec.check_same(self.codec.info, "the voice", "the model")
                prompts.append((*self._encode(request.prompt.phonemes), request.prompt.codes))
            elif request.prompt_text is None:
                prompts.append((None, set(), next(encoded)))
            else:
                prompts.append((*next(said), next(encoded)))
        return prompts

    def _check_length(self, job: Job) -> None:
        prompt_frames, limit = len(job.prompt_codes), self.model.max_tokens
        if job.prefix_length + job.min_frames > limit:
            raise UserError(
                f"the prompt ({prompt_frames} frames) and the text ({len(job.text)} phonemes) need more than the "
                f"{limit} tokens that this model was trained on; use a shorter prompt or split the text"
            )

    def phonemize(self, texts: Sequence[str]) -> list[str]:
        """The phoneme string of each text; "" where it has none."""
        return self._phonemize(texts)

    def phonemes(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Symbols int32 [S] of each text; UserError where one has none."""
        return [ids for ids, _ in self._symbols(texts)]

    def _symbols(self, texts: Sequence[str]) -> list[tuple[np.ndarray, set[str]]]:
        """`phonemes`, and which of each text the vocabulary lacks."""
        encoded = [self._encode(phonemes) for phonemes in self._phonemize(texts)]
        for text, (ids, _) in zip(texts, encoded, strict=True):
            if len(ids) == 0:
                raise UserError(f"the text {text!r} has no phonemes")
        return encoded

    def _encode(self, phonemes: str) -> tuple[np.ndarray, set[str]]:
        unknown: collections.Counter[str] = collections.Counter()
        return self.model.vocabulary.encode(phonemes, unknown), set(unknown)

    def _prompt(self, prompt: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
        if isinstance(prompt, np.ndarray):
            samples = prompt.astype(np.float32)
            name = "the prompt"
        else:
            samples, name = read_audio(prompt, self.codec.info.sample_rate), str(prompt)
        seconds = len(samples) / self.codec.info.sample_rate
        if seconds < MIN_PROMPT_SECONDS:
            raise UserError(
                f"{name} has {seconds:.2f} s; a voice prompt needs at least {MIN_PROMPT_SECONDS} s, best 3 s"
            )
        if np.abs(samples).max() < SILENCE:
            raise UserError(f"{name} is silent; record a voice prompt of about 3 s")
        return samples

    def voice(self, prompt: str | os.PathLike[str] | np.ndarray, text: str) -> Voice:
        """Encodes a prompt for good; UserError as `synthesize`."""
        codes, lengths = self.codec.encode([self._prompt(prompt)])
        (phonemes,) = self._phonemize([text])
        if not len(self.model.vocabulary.encode(phonemes)):
            raise UserError(f"the text {text!r} has no phonemes")
        return Voice(codes[0, : lengths[0]], text, phonemes, self.language, self.codec.info)

    def generate(self, jobs: Sequence[Job], *, seed: int, options: Options) -> list[Take]:
        """The most probable take of every job, of one try, with all codebooks."""
        keys = take_keys(seed, range(len(jobs)), options.takes(0))
        return generate(jobs, self.ar, self.nar, keys, options.sampling, options.batch_size, self._filling(options))

    def draw(
        self, jobs: Sequence[Job], ids: Sequence[int], *, seed: int, options: Options, number: int = 0
    ) -> list[list[Take]]:
        """Codebook 1 of the takes of a try of every job; `ids`, in 0 to 2³² - 1, tell the jobs' keys apart."""
        keys = take_keys(seed, ids, options.takes(number))
        takes = sample_first_codebook(jobs, self.ar, keys.reshape(-1), options.sampling, options.batch_size)
        return [takes[i : i + options.best_of] for i in range(0, len(takes), options.best_of)]

    def finish(
        self, jobs: Sequence[Job], takes: Sequence[Sequence[Take]], *, options: Options, seed: int | None = None
    ) -> list[Audio]:
        """The best of every job's takes of codebook 1, as audio."""
        if options.rank_by == "log_probability":
            best = [most_probable(job, some) for job, some in zip(jobs, takes, strict=True)]
            return self.decode(jobs, self._fill_takes(jobs, best, options), seed=seed)
        owners = [job for job, some in zip(jobs, takes, strict=True) for _ in some]
        filled = self._fill_takes(owners, list(itertools.chain.from_iterable(takes)), options)
        audios = iter(self.decode(owners, filled, seed=seed))
        prompts = self.codec.decode(*pad_codes([job.prompt_codes for job in jobs], self.codec.info.codebooks))
        return [
            choose(job, list(itertools.islice(audios, len(some))), prompt, options)
            for job, some, prompt in zip(jobs, takes, prompts, strict=True)
        ]

    def _fill_takes(self, jobs: Sequence[Job], takes: Sequence[Take], options: Options) -> list[Take]:
        """Takes of codebook 1 with all codebooks."""
        filled = self.fill(jobs, [take.codes[:, 0] for take in takes], options)
        return [dataclasses.replace(take, codes=codes) for take, codes in zip(takes, filled, strict=True)]

    def fill(
        self,
        jobs: Sequence[Job],
        first_codebook: Sequence[np.ndarray],
        options: Options,
        frozen: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """All codebooks, int32 [T, Q], of jobs whose codebook 1 is given, int [T] each; `frozen` ones stay."""
        return fill_codebooks(jobs, first_codebook, self.nar, options.batch_size, self._filling(options), frozen)

    def _filling(self, options: Options) -> Filling:
        codebooks = self.codec.codebooks if options.nar_temperature else None
        return Filling(codebooks, options.nar_temperature, options.nar_guidance)

    def decode(self, jobs: Sequence[Job], takes: Sequence[Take], *, seed: int | None = None) -> list[Audio]:
        """Codes to audio, each behind a little of its prompt, which is cut off, and judged; `seed` is only noted."""
        info = self.codec.info
        contexts = [job.prompt_codes[-CONTEXT_FRAMES:] for job in jobs]
        wholes = [np.concatenate([context, take.codes]) for context, take in zip(contexts, takes, strict=True)]
        decoded = self.codec.decode(*pad_codes(wholes, info.codebooks))
        audios = []
        for job, context, take, whole in zip(jobs, contexts, takes, decoded, strict=True):
            samples = whole[round(len(context) * info.sample_rate / info.frames_per_second) :]
            facts = describe(job, take, samples, info) | {"seed": seed}
            audios.append(Audio(samples, info.sample_rate, facts, take.codes))
        return audios
