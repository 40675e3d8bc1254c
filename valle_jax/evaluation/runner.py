"""Says and measures trials, and computes nothing that the cache has."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from valle_jax.errors import UserError
from valle_jax.evaluation.cache import Cache
from valle_jax.evaluation.results import Measured, Row
from valle_jax.evaluation.sample import Measure, Sample, Values
from valle_jax.evaluation.systems import RERANKED_TAKES, SYSTEMS, Material, Said, System, Voice, resynthesise
from valle_jax.evaluation.trials import Trial, digest
from valle_jax.inference.ranking import rerank
from valle_jax.inference.synthesizer import Options, Synthesizer
from valle_jax.version import __version__

RERANK_WER, RERANK_SIM = "wer", "similarity_prompt_resynthesised"  # figures that the best take is chosen by
CHUNK_BATCHES = 4  # of trials that are said before they are written: what a kill may lose
# Options on which a single take does not depend.
NO_MATTER = ("batch_size", "tries", "best_of", "rank_by", "recogniser", "speaker_model")
MODEL_FILES = ("config.json", "vocabulary.json", "codec.json", "ar.safetensors", "nar.safetensors")
Request = tuple[Trial, Trial]  # a trial, and what is asked for in its place


@dataclasses.dataclass(frozen=True)
class _Take:
    """A request said with a seed, and what decides its audio."""

    trial: Trial
    request: Trial
    seed: int
    key: str

    @property
    def values_key(self) -> str:
        """Of the values, which also depend on what the audio is compared with."""
        return digest(self.key, dataclasses.asdict(self.trial))


class Runner:
    """Rows of a table, computed where the cache lacks them.

    Attributes:
      cache: of audio and values.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        root: pathlib.Path,
        out: pathlib.Path,
        cache: Cache,
        measures: Sequence[Measure],
        options: Options,
        *,
        language: str = "en-us",
        codec_weights: str | None = None,
        progress: bool = True,
    ):
        """`root` is where the trials' audio is, `out` what the paths of samples start from.

        Raises:
          UserError: not a model directory.
        """
        self.cache = cache
        self._model_dir, self._language, self._codec_weights = pathlib.Path(model_dir), language, codec_weights
        self._root, self._out, self._measures = root, out, measures
        self._options, self._progress = options, progress
        hashes = {name: _file_hash(self._model_dir / name) for name in MODEL_FILES}
        self.model_hash = digest(hashes)
        self._codec_hash = hashes["codec.json"]

    @functools.cached_property
    def _voice(self) -> Voice:
        """Loaded when something is to be said: a run that only merges needs no model."""
        tts = Synthesizer.load(self._model_dir, language=self._language, codec_weights=self._codec_weights)
        return Voice(tts, self._options)

    def row(self, name: str, trials: Sequence[Trial], seeds: range, shard: tuple[int, int] = (0, 1)) -> Row:
        """A system's row on the trials of one setting; of a shard (i, n), on every n-th trial from the i-th.

        The caller sets what the row's baseline is called.
        """
        system = SYSTEMS[name]
        asked = system.request(trials) if system.request else trials
        requests = [(trial, ask) for trial, ask in zip(trials, asked, strict=True) if ask is not None]
        mine = requests[shard[0] :: shard[1]]
        setting = trials[0].setting
        seeds = seeds if system.sampled else range(1)
        total = len(mine) * len(seeds) * (RERANKED_TAKES if system.say is None else 1)
        with tqdm(total=total, desc=f"{system.label}, {setting}", unit="take", disable=not self._progress) as bar:
            parts = list(self._runs(system, mine, seeds, bar))
        samples = tuple(sample for some, _ in parts for sample in some)
        failed = {trial: reason for _, some in parts for trial, reason in some.items()}
        return Row(name, setting, system.label, system.baseline, samples, tuple(sorted(failed.items())))

    def _runs(
        self, system: System, requests: Sequence[Request], seeds: range, bar: tqdm
    ) -> Iterator[tuple[list[Measured], dict[str, str]]]:
        for seed in seeds:
            if system.say is not None:
                yield self._run(system, requests, seed, bar)
                continue
            numbers = range(seed * RERANKED_TAKES, (seed + 1) * RERANKED_TAKES)
            runs = [self._run(SYSTEMS["valle"], requests, number, bar) for number in numbers]
            takes = zip(*(samples for samples, _ in runs), strict=True)  # trials that fail do so with every seed
            yield [dataclasses.replace(self._best(group), seed=seed) for group in takes], runs[0][1]

    def _best(self, takes: Sequence[Measured]) -> Measured:
        """By P2's rule, with the first measures that have what it asks for."""
        rates, similarities = (
            [_value(self._measures, name, take.values) for take in takes] for name in (RERANK_WER, RERANK_SIM)
        )
        return takes[rerank(rates, similarities)]

    def _run(
        self, system: System, requests: Sequence[Request], seed: int, bar: tqdm
    ) -> tuple[list[Measured], dict[str, str]]:
        """All samples of a system with a seed, and the trials that failed."""
        takes = [_Take(trial, ask, seed, self._key(system, ask, seed)) for trial, ask in requests]
        measured: list[Measured] = []
        failed: dict[str, str] = {}
        size = CHUNK_BATCHES * self._options.batch_size
        for start in range(0, len(takes), size):
            chunk = takes[start : start + size]
            failed |= self._say(system, [take for take in chunk if self.cache.info(take.key) is None])
            said = [take for take in chunk if take.trial.id not in failed]
            measured += self._measure(said)
            bar.update(len(chunk))
        return measured, failed

    def _key(self, system: System, request: Trial, seed: int) -> str:
        identity = {"ground-truth": "", "codec": self._codec_hash}.get(system.plan, self.model_hash)
        decides: dict[str, Any] = {"plan": system.plan, "of": identity, "trial": dataclasses.asdict(request)}
        if identity == self.model_hash:
            options = {k: v for k, v in dataclasses.asdict(self._options).items() if k not in NO_MATTER}
            decides |= {"options": options, "version": __version__, "language": self._language}
        if system.sampled:
            decides["seed"] = seed
        return digest(decides)

    def _say(self, system: System, takes: Sequence[_Take]) -> dict[str, str]:
        """Says and keeps takes; returns the trials that the model cannot be asked for, such as too long ones."""
        if not takes:
            return {}
        assert system.say is not None
        materials = [self._material(take.request) for take in takes]
        try:
            said = system.say(self._voice, materials, takes[0].seed)
        except UserError as error:
            if len(takes) == 1:
                return {takes[0].trial.id: str(error)}
            failed: dict[str, str] = {}
            for take in takes:
                failed |= self._say(system, [take])
            return failed
        for take, one in zip(takes, said, strict=True):
            self._keep(take.key, one)
        return {}

    def _material(self, trial: Trial) -> Material:
        return Material.load(trial, self._root, self._rate)

    def _keep(self, key: str, said: Said) -> None:
        self.cache.keep(key, said.audio, self._rate, said.info)

    @property
    def _rate(self) -> int:
        return self._voice.codec.info.sample_rate

    def _measure(self, takes: Sequence[_Take]) -> list[Measured]:
        """The takes' values; a measure sees all takes that lack it at once."""
        values = [self.cache.values(take.values_key) for take in takes]
        names = [measure.name for measure in self._measures]
        lacking = [i for i, known in enumerate(values) if not known.keys() >= set(names)]
        samples = dict(zip(lacking, self._samples([takes[i] for i in lacking]), strict=True))
        for measure in self._measures:
            missing = [i for i in lacking if measure.name not in values[i]]
            if missing:
                seen = [_heard_by(measure, samples[i], takes[i].trial) for i in missing]
                for i, new in zip(missing, measure.measure(seen), strict=True):
                    values[i][measure.name] = new
        for i in lacking:
            self.cache.keep_values(takes[i].values_key, values[i])
        return [
            Measured(take.trial.id, take.seed, self._file(take.key), {name: known[name] for name in names})
            for take, known in zip(takes, values, strict=True)
        ]

    def _file(self, key: str) -> str | None:
        path = self.cache.path(key)
        return os.path.relpath(path, self._out) if path.exists() else None

    def _samples(self, takes: Sequence[_Take]) -> list[Sample]:
        """What is measured, with prompts through the codec."""
        materials = [self._material(take.trial) for take in takes]
        keys = [digest("prompt", self._codec_hash, t.trial.prompt_hash, t.trial.prompt_seconds) for t in takes]
        new = {key: m.prompt for key, m in zip(keys, materials, strict=True) if self.cache.info(key) is None}
        if new:
            for key, audio in zip(new, resynthesise(self._voice.codec, list(new.values())), strict=True):
                self._keep(key, Said(audio, {}))
        return [
            Sample(
                trial=take.trial.id,
                speaker=take.trial.speaker,
                text=take.trial.text,
                audio=self.cache.audio(take.key),
                sample_rate=self._rate,
                prompt=material.prompt,
                prompt_resynthesised=self.cache.audio(key),
                reference=material.reference,
                info=self.cache.info(take.key) or {},
            )
            for take, material, key in zip(takes, materials, keys, strict=True)
        ]


def _heard_by(measure: Measure, sample: Sample, trial: Trial) -> Sample:
    """A sample as a measure gets it: where a prompt was continued, voices are compared without the prompt itself."""
    if not (trial.continues and measure.name.startswith("similarity")):
        return sample
    start = round(trial.prompt_seconds * sample.sample_rate)
    reference = None if sample.reference is None else sample.reference[start:]
    return dataclasses.replace(sample, audio=sample.audio[start:], reference=reference)


def _file_hash(path: pathlib.Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        raise UserError(f"{path.parent} is not a model directory: {path.name} is missing") from None


def _value(measures: Sequence[Measure], figure_name: str, values: Mapping[str, Values]) -> float:
    """A figure of one sample by the first measure that has it; NaN where the sample does not."""
    measure, figure = next((m, f) for m in measures for f in m.figures if f.name == figure_name)
    row = values[measure.name]
    if figure.of not in row:
        return float("nan")
    return float(row[figure.of]) / (float(row[figure.per]) if figure.per else 1.0)
