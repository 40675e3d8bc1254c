"""A model by a paper's protocol: trials, audio of every system, measures, report."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from valle_jax.errors import UserError
from valle_jax.evaluation.cache import Cache
from valle_jax.evaluation.choose import get_measures
from valle_jax.evaluation.corpus import Corpus
from valle_jax.evaluation.protocols import Protocol, get_protocol, with_whole_prompts
from valle_jax.evaluation.report import write_report
from valle_jax.evaluation.results import Results, Row, columns_of
from valle_jax.evaluation.runner import RERANK_SIM, RERANK_WER, Runner
from valle_jax.evaluation.sample import Measure
from valle_jax.evaluation.systems import SYSTEMS
from valle_jax.evaluation.teacher_forced import teacher_forced
from valle_jax.evaluation.trials import Trial, TrialList, header, make_trials
from valle_jax.inference.synthesizer import Options
from valle_jax.version import __version__

Path = str | os.PathLike[str]


def evaluate(
    model_dir: Path,
    protocol: str | Protocol,
    data: Path,
    out: Path,
    *,
    systems: Sequence[str] | None = None,
    measures: Sequence[str] | Sequence[Measure] | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    limit: int | None = None,
    options: Options = Options(),
    audio: Path | None = None,
    dataset: Path | None = None,
    trials: Path | None = None,
    whole_prompts: bool = False,
    cache: Path | None = None,
    shard: tuple[int, int] | None = None,
    language: str = "en-us",
    codec_weights: str | None = None,
    progress: bool = True,
) -> Results:
    """Evaluates a model and writes OUT/results.json, values.jsonl, table.md, index.html, plots and the trial list.

    Args:
      model_dir: what `valle export` wrote.
      protocol: a name in `PROTOCOLS`, or a protocol.
      data: corpus with speakers, or dataset directory.
      out: folder to write.
      systems: rows, by their names in `SYSTEMS`; default: the protocol's.
      measures: names or measures; default: those that run offline.
      seeds: runs of every row that is sampled.
      first_seed: of the first run; the others count on.
      limit: utterances to test on; default: all.
      options: how the model speaks.
      audio: of a dataset directory: the corpus that it was prepared from.
      dataset: dataset directory, of whose validation splits teacher-forced losses and accuracies are computed; default:
        `data` where it is one, else they are left out.
      trials: a trial list to use instead of one made from `data`.
      whole_prompts: take whole recordings for prompts instead of cutting them at words.
      cache: folder of audio and values, which evaluations may share; default: OUT/cache.
      shard: (i, n): only say and measure every n-th trial from the i-th, and write no report; a run without it on
        the same folder then puts the parts together.
      language: of the texts, as espeak-ng names it.
      codec_weights: file with the codec's weights, where they are not to be fetched.
      progress: whether bars are shown.

    Raises:
      UserError: something asked for is not there, or does not fit.
      WorkError: the corpus makes no trial.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    names = list(systems or rule.systems)
    for name in names:
        if name not in SYSTEMS:
            raise UserError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
    if seeds < 1 or (limit is not None and limit < 1):
        raise UserError("--seeds and --limit must be positive")
    if trials is not None and (limit is not None or whole_prompts):
        raise UserError("--limit and --whole-prompts are for making a trial list, and --trials gives one")
    if options.best_of != 1:
        raise UserError("evaluation takes one sample of each text; the system best-of-5 chooses among five")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise UserError(f"shard {shard[0]}/{shard[1]}: the first number must be in 0 to {shard[1] - 1}")
    try:
        codec = json.loads((pathlib.Path(model_dir) / "codec.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{os.fspath(model_dir)} is not a model directory; `valle export` makes one") from None
    used = _measures(measures, codec["codebooks"])
    figures = {figure.name for measure in used for figure in measure.figures}
    if any(SYSTEMS[name].say is None for name in names) and not {RERANK_WER, RERANK_SIM} <= figures:
        raise UserError("best-of-5 chooses by measures of wer and similarity; add them, or leave out the system")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    corpus = Corpus.open(data, audio)
    if whole_prompts:
        rule = with_whole_prompts(rule)
    chosen = TrialList.load(trials) if trials else _list(corpus, rule, out, limit, language, progress)
    chosen.save(out)
    runner = Runner(
        model_dir,
        corpus.root,
        out,
        Cache(pathlib.Path(cache or out / "cache")),
        used,
        options,
        language=language,
        codec_weights=codec_weights,
        progress=progress,
    )
    if dataset is None and (pathlib.Path(data) / "dataset.json").is_file():
        dataset = data
    forced = teacher_forced(model_dir, dataset) if dataset is not None and shard is None else {}
    rows = _rows(runner, chosen.trials, names, range(first_seed, first_seed + seeds), shard or (0, 1))
    facts: dict[str, Any] = {
        "protocol": rule.name,
        "model": os.fspath(model_dir),
        "model_hash": runner.model_hash,
        "trials": {**chosen.header, "n": len(chosen.trials), "rejected": len(chosen.rejected)},
        "seeds": seeds,
        "first_seed": first_seed,
        "options": dataclasses.asdict(options),
        "teacher_forced": forced,
        "versions": {"valle-jax": __version__, "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }
    results = Results(facts, columns_of(used), rows)
    if shard is None:
        write_report(results, chosen.trials, corpus.root, out)
        results.save(out)  # last: a folder with results.json is done
    return results


def _list(
    corpus: Corpus, rule: Protocol, out: pathlib.Path, limit: int | None, language: str, progress: bool
) -> TrialList:
    """The list that an earlier run made by the same rule, or a new one."""
    if (out / "trials.jsonl").exists():
        earlier = TrialList.load(out / "trials.jsonl")
        if earlier.header == header(corpus, rule, limit, language):
            return earlier
    return make_trials(corpus, rule, limit=limit, language=language, progress=progress)


def _measures(measures: Sequence[str] | Sequence[Measure] | None, codebooks: int) -> list[Measure]:
    """Those asked for, made where they are names."""
    if measures is None:
        return get_measures(None, codebooks)
    made: list[Measure] = []
    for measure in measures:
        made += get_measures([measure], codebooks) if isinstance(measure, str) else [measure]
    return made


def _rows(
    runner: Runner, trials: Sequence[Trial], names: Sequence[str], seeds: range, shard: tuple[int, int]
) -> dict[str, Row]:
    """The rows of all settings, by key."""
    rows: dict[str, Row] = {}
    settings = list(dict.fromkeys(trial.setting for trial in trials))
    for setting in settings:
        mine = [trial for trial in trials if trial.setting == setting]
        continues = mine[0].continues

        def key(name: str, setting: str = setting) -> str:
            return name if len(settings) == 1 else f"{name} ({setting})"

        for name in names:
            if continues and not SYSTEMS[name].continues:
                continue
            row = runner.row(name, mine, seeds, shard)
            label = f"{row.label}-continual" if name == "valle" and continues else row.label
            baseline = key(row.baseline) if row.baseline and row.baseline in names else None
            rows[key(name)] = dataclasses.replace(row, label=label, baseline=baseline)
    return rows
