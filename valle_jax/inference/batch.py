"""Any number of jobs through one engine: read as they are needed, drawn side by side, written one by one.

Codebook 1 comes from the engine in whatever order utterances end. What is done is collected until there are enough of
them to fill in the other codebooks and to decode in batches of like length. A bad take is drawn again with another key.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Iterator

from jax.sharding import Mesh

from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, take_keys, within
from valle_jax.inference.engine import Engine, Task
from valle_jax.inference.manifest import BadLine, BatchJob, Results, check_ids, read_jobs
from valle_jax.inference.synthesizer import Audio, Options, Request, Synthesizer
from valle_jax.inference.voice import Voice, find_voice

KNOWN_VOICES = 256  # encoded prompts that are kept
WINDOW = 16  # jobs that are read ahead and sorted by length, in slots
AUDIO = "audio"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a batch is run.

    Attributes:
      options: how everything is said; its `batch_size` utterances are filled in at a time.
      slots: utterances that are drawn side by side.
      max_tokens: of prompt, texts and speech together.
      seed: of jobs that name none.
      suffix: of the audio files: .wav, .flac or .ogg.
      voices: folder of stored voices; None: the user's.
      mesh: the chips of this host; None: one.
    """

    options: Options
    slots: int = 16
    max_tokens: int = 2048
    seed: int = 0
    suffix: str = ".wav"
    voices: str | None = None
    mesh: Mesh | None = None


@dataclasses.dataclass
class Totals:
    """What came of the jobs.

    Attributes:
      done: jobs with audio.
      with_problems: of those, jobs whose last try was a bad take too.
      failed: jobs without audio.
      audio_seconds: of speech.
      started: when, by `time.perf_counter`.
    """

    done: int = 0
    with_problems: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    started: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def real_time_factor(self) -> float:
        """Seconds since the start per second of speech."""
        return (time.perf_counter() - self.started) / max(self.audio_seconds, 1e-9)


@dataclasses.dataclass(frozen=True, eq=False)
class _Try:
    """A job that is drawn for the `number`-th time."""

    job: BatchJob
    utterance: Job
    seed: int
    number: int = 0


class Batch:
    """The jobs of one file, or one worker's part of them, and the folder where they end.

    Args:
      tts: the model.
      jobs: a line of JSON each; see `BatchJob`. Audio paths are relative to it.
      out: folder for `audio/ID.SUFFIX` and `results.jsonl`.
      settings: see there.
      part: which of the workers this is.
      parts: how many workers share the file.
    """

    def __init__(
        self,
        tts: Synthesizer,
        jobs: str | os.PathLike[str],
        out: str | os.PathLike[str],
        settings: Settings,
        *,
        part: int = 0,
        parts: int = 1,
    ):
        self._tts, self._settings = tts, settings
        self._jobs = pathlib.Path(jobs)
        check_ids(jobs)
        self._out = pathlib.Path(out)
        (self._out / AUDIO).mkdir(parents=True, exist_ok=True)
        self._results = Results(self._out, part=part, parts=parts)
        self._part, self._parts = part, parts
        max_tokens = min(settings.max_tokens, tts.model.max_tokens)
        self._max_tokens = max_tokens
        self._engine = Engine(
            tts.ar,
            settings.options.sampling,
            slots=settings.slots,
            max_tokens=max_tokens,
            max_frames=max_tokens,
            mesh=settings.mesh,
        )
        self._again: collections.deque[_Try] = collections.deque()
        self._drawing: dict[str, _Try] = {}
        self._drawn: list[tuple[_Try, list[Take]]] = []
        self._voice = functools.lru_cache(maxsize=KNOWN_VOICES)(self._encode)
        self.totals = Totals()

    @property
    def occupancy(self) -> float:
        """Share of the slots that drew something, so far."""
        return self._engine.occupancy.share

    def run(self, progress: Callable[[Totals], object] = lambda totals: None) -> Totals:
        """Does all jobs that are not done; `progress` is called after each group of them."""
        fresh = self._fresh()
        group = 2 * self._settings.options.batch_size
        while True:
            for task, takes in self._engine.run(self._tasks(fresh)):
                self._drawn.append((self._drawing.pop(task.name), takes))
                if len(self._drawn) >= group:
                    self._finish()
                    progress(self.totals)
            self._finish()
            progress(self.totals)
            if not self._again:
                self._results.close()
                return self.totals

    def _tasks(self, fresh: Iterator[_Try]) -> Iterator[Task]:
        """Bad takes first, then what was not tried yet."""
        while True:
            attempt = self._again.popleft() if self._again else next(fresh, None)
            if attempt is None:
                return
            takes = self._settings.options.takes(attempt.number)
            keys = take_keys(attempt.seed, [zlib.crc32(attempt.job.id.encode())], takes)[0]
            name = str(attempt.job.line)
            self._drawing[name] = attempt
            yield Task(name, attempt.utterance, keys)

    def _fresh(self) -> Iterator[_Try]:
        """The jobs of the file, a window at a time, in it sorted by length: alike prefixes are computed together."""
        lines = read_jobs(self._jobs, part=self._part, parts=self._parts, done=self._results.done)
        while window := list(itertools.islice(lines, WINDOW * self._settings.slots)):
            attempts = []
            for line in window:
                if isinstance(line, BadLine):
                    self._fail(line.line, line.id, line.reason)
                    continue
                try:
                    seed = self._settings.seed if line.seed is None else line.seed
                    attempts.append(_Try(line, self._utterance(line), seed))
                except UserError as error:
                    self._fail(line.line, line.id, str(error))
            yield from sorted(attempts, key=lambda attempt: -attempt.utterance.prefix_length)

    def _utterance(self, job: BatchJob) -> Job:
        voice = self._voice(job.voice, job.prompt, job.prompt_text)
        (utterance,) = self._tts.jobs([Request(job.text, voice)], self._settings.options)
        return within(utterance, self._max_tokens, self._tts.ar[0].config)

    def _encode(self, name: str | None, prompt: str | None, prompt_text: str | None) -> Voice:
        if name is not None:
            return find_voice(name, self._settings.voices)
        assert prompt is not None and prompt_text is not None
        return self._tts.voice(self._jobs.parent / prompt, prompt_text)

    def _finish(self) -> None:
        """Fills in, decodes and judges what was drawn, in batches of like length."""
        self._drawn.sort(key=lambda item: item[0].utterance.prefix_length + len(item[1][0].codes))
        options = self._settings.options
        for start in range(0, len(self._drawn), options.batch_size):
            some = self._drawn[start : start + options.batch_size]
            utterances = [attempt.utterance for attempt, _ in some]
            audios = self._tts.finish(utterances, [takes for _, takes in some], options=options)
            for (attempt, _), audio in zip(some, audios, strict=True):
                if audio.info["problems"] and attempt.number + 1 < options.tries:
                    self._again.append(dataclasses.replace(attempt, number=attempt.number + 1))
                else:
                    self._write(attempt, audio)
        self._drawn.clear()

    def _write(self, attempt: _Try, audio: Audio) -> None:
        """The audio, then the line that makes the job done."""
        path = self._out / AUDIO / f"{attempt.job.id}{self._settings.suffix}"
        part = path.with_name(f".{attempt.job.id}.part{self._settings.suffix}")
        audio.save(part)
        part.replace(path)
        self.totals.done += 1
        self.totals.with_problems += bool(audio.info["problems"])
        self.totals.audio_seconds += audio.info["seconds"]
        record = {"id": attempt.job.id, "audio": str(path.relative_to(self._out)), **audio.info}
        record |= {"seed": attempt.seed, "tries": attempt.number + 1}
        record["real_time_factor"] = round(self.totals.real_time_factor, 4)
        self._results.append(attempt.job.line, record)

    def _fail(self, line: int, name: str, reason: str) -> None:
        self.totals.failed += 1
        self._results.append(line, {"id": name, "audio": None, "problems": ["failed"], "reason": reason})
