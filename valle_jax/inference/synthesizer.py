"""Text and a voice prompt to audio."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from valle_jax.audio import read_audio, write_audio
from valle_jax.codec import get_codec
from valle_jax.codec.base import pad_codes
from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, fill_codebooks, generate
from valle_jax.inference.generate import Filling
from valle_jax.inference.model_dir import ModelDir, load_model_dir
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.streaming import CONTEXT_FRAMES, AudioChunk, Pace, stream
from valle_jax.inference.voice import Voice
from valle_jax.model import build
from valle_jax.text.token_table import TokenTable

MIN_PROMPT_SECONDS = 0.5
SILENCE = 1e-3  # peak amplitude below which a prompt is called silent
SYMBOLS_PER_SECOND = 14  # phonemes, stresses and spaces of read English: the rate of a prompt without a transcript


@dataclasses.dataclass(frozen=True)
class Audio:
    """Synthesised speech.

    Attributes:
      samples: float32 [samples] in [-1, 1].
      sample_rate: samples per second.
      info: `frames`, `seconds`, `finished` (ended by end of speech), `log_probability` (mean per code), `problems`
        (list of names, empty for a good take), `seed`.
      codes: int32 [frames, codebooks].
    """

    samples: np.ndarray
    sample_rate: int
    info: dict[str, Any]
    codes: np.ndarray

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the audio, in the format that the suffix names."""
        write_audio(path, self.samples, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to say, and in whose voice.

    Attributes:
      text: what to say.
      prompt: about 3 seconds of the voice: an audio file, float32 [samples] at the codec's sample rate, or a stored
        voice, which knows what it says.
      prompt_text: what the prompt says; None: `text` is the whole of an utterance that the prompt begins, and the
        model goes on from there (VALL-E-continual: P1, section 5.1).
    """

    text: str
    prompt: str | os.PathLike[str] | np.ndarray | Voice
    prompt_text: str | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """How to say it.

    Attributes:
      sampling: the decoding rules.
      min_rate_ratio: shortest speech allowed, as a share of what the prompt's speaking rate predicts for the text
        (without its transcript: `SYMBOLS_PER_SECOND`).
      max_rate_ratio: longest speech allowed, likewise; a take that reaches it has no end of speech.
      best_of: takes per request; finished ones go first, then the highest mean log-probability.
      nar_temperature: 0 takes the NAR's most probable codes; above, those nearest to the expected vectors: see
        `Filling`.
      nar_guidance: above 1, the NAR keeps closer to the voice of the prompt, for twice the work: see `Filling`.
      batch_size: takes that are generated side by side.
    """

    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95)
    min_rate_ratio: float = 0.5
    max_rate_ratio: float = 2.5
    best_of: int = 1
    nar_temperature: float = 0.0
    nar_guidance: float = 1.0
    batch_size: int = 16

    def __post_init__(self):
        for name in ("best_of", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        if self.nar_temperature < 0:
            raise UserError(f"nar_temperature {self.nar_temperature} must not be negative")
        if not 0 <= self.min_rate_ratio <= self.max_rate_ratio:
            raise UserError(f"rate ratios {self.min_rate_ratio} and {self.max_rate_ratio} are not from low to high")


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
        """Says many texts; utterance i draws from the key (seed, first + i, take), whatever its neighbours."""
        jobs = self.jobs(requests, options)
        takes = self.generate(jobs, seed=seed, options=options, first=first)
        return self.decode(jobs, takes, seed=seed)

    def jobs(self, requests: Sequence[Request], options: Options) -> list[Job]:
        """Phonemizes the texts, encodes the prompts and sets the limits of every request."""
        texts = self.phonemes([request.text for request in requests])
        prompts = self._prompts(requests)
        jobs = []
        for text, (said, codes) in zip(texts, prompts, strict=True):
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
            )
            self._check_length(job)
            jobs.append(job)
        return jobs

    def _prompts(self, requests: Sequence[Request]) -> list[tuple[np.ndarray | None, np.ndarray]]:
        """The symbols of what each prompt says, None where it begins the text, and its codes [P, Q]."""
        audio = [self._prompt(r.prompt) for r in requests if not isinstance(r.prompt, Voice)]
        codes, lengths = self.codec.encode(audio) if audio else ((), ())
        encoded = (item[:length] for item, length in zip(codes, lengths, strict=True))
        texts = [r.prompt_text for r in requests if not isinstance(r.prompt, Voice) and r.prompt_text is not None]
        said = iter(self.phonemes(texts))
        prompts: list[tuple[np.ndarray | None, np.ndarray]] = []
        for request in requests:
            if isinstance(request.prompt, Voice):
                request.prompt.codec.check_same(self.codec.info, "the voice", "the model")
                prompts.append((self.model.vocabulary.encode(request.prompt.phonemes), request.prompt.codes))
            else:
                prompts.append((None if request.prompt_text is None else next(said), next(encoded)))
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
        encoded = [self.model.vocabulary.encode(p, None) for p in self._phonemize(texts)]
        for text, ids in zip(texts, encoded, strict=True):
            if len(ids) == 0:
                raise UserError(f"the text {text!r} has no phonemes")
        return encoded

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

    def generate(self, jobs: Sequence[Job], *, seed: int, options: Options, first: int = 0) -> list[Take]:
        """The best take of every job."""
        fold_in = jax.random.fold_in
        takes = np.arange(options.best_of)
        keys = jax.vmap(lambda i: jax.vmap(lambda take: fold_in(fold_in(jax.random.key(seed), i), take))(takes))
        return generate(
            jobs,
            self.ar,
            self.nar,
            keys(np.arange(first, first + len(jobs))),
            options.sampling,
            options.batch_size,
            self._filling(options),
        )

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
        """Codes to audio, each behind a little of its prompt, which is cut off; `seed` is only noted."""
        info = self.codec.info
        contexts = [job.prompt_codes[-CONTEXT_FRAMES:] for job in jobs]
        wholes = [np.concatenate([context, take.codes]) for context, take in zip(contexts, takes, strict=True)]
        decoded = self.codec.decode(*pad_codes(wholes, info.codebooks))
        audios = []
        for context, take, whole in zip(contexts, takes, decoded, strict=True):
            samples = whole[round(len(context) * info.sample_rate / info.frames_per_second) :]
            facts = {
                "frames": len(take.codes),
                "seconds": len(samples) / info.sample_rate,
                "finished": take.finished,
                "log_probability": take.log_probability,
                "problems": [] if take.finished else ["no_end_of_speech"],
                "seed": seed,
            }
            audios.append(Audio(samples, info.sample_rate, facts, take.codes))
        return audios
