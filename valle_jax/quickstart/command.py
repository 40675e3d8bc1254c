"""The verb `valle quickstart`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import shutil
import statistics
import sys
import time
from typing import Any

from valle_jax.config import Config, Stage
from valle_jax.configs import get_preset
from valle_jax.errors import UserError, WorkError

STARTED = "VALLE_QUICKSTART_STARTED"  # seconds since the epoch, set by launch/quickstart.sh before it installs
CORPUS_MINUTES = 5.0  # of training audio per minute that the command may take
AFTER_TRAINING_STEPS = 900  # of both decoders take as long as what follows: export, synthesis, measuring, the report
# Of the training time that is left when it begins. Without a good NAR, the voice is not the prompt's.
SHARES: dict[Stage, float] = {"ar": 0.53, "nar": 1.0}
CALIBRATION_STEPS = 80
EVALUATIONS = 3  # of each decoder while it trains
MIN_STEPS = 60
ONE_DEVICE = {"data": 1}  # a batch has one or two rows


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Train a small VALL-E from nothing on this machine, and hear it speak digits in voices that it never heard.

    It makes a corpus with espeak-ng, prepares it with the shipped codec, trains both decoders, synthesises unseen texts
    in unseen voices from prompts of 3 s, measures what came out, and writes OUT/report.html and OUT/report.json.

    Example: valle quickstart --minutes 30 --out quickstart
    """

    out: str = "quickstart"
    """Folder to write; it must not exist or be empty."""
    minutes: float = 14.5
    """How long it may take, the installation by launch/quickstart.sh included; what is left goes into training."""
    seed: int = 0
    """Of the corpus, the training and the sampling."""
    test_utterances: int = 104
    """Unseen texts in unseen voices to synthesise and measure."""
    steps: tuple[int, int] | None = None
    """Training steps of the AR and the NAR decoder; default: as many as there is time for."""

    def __post_init__(self):
        if self.minutes <= 0 or self.test_utterances < 2:
            raise UserError("--minutes must be positive and --test-utterances at least 2")

    def run(self) -> None:
        """Runs everything and prints where the report is."""
        out = pathlib.Path(self.out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out} holds something already; choose another folder or remove it")
        clock = Clock.start(self.minutes)
        self._prepare(out, clock)
        steps = self._train(out, clock)
        self._report(out, clock, steps)

    def _prepare(self, out: pathlib.Path, clock: Clock) -> None:
        from data_prep.prepare import Prepare, prepare
        from data_prep.synthetic import Corpus

        clock.say("speaking the corpus")
        corpus = out / "corpus"
        Corpus(str(corpus), CORPUS_MINUTES * self.minutes, test_utterances=self.test_utterances, seed=self.seed).run()
        clock.say("encoding it with mel_rvq")
        prepare(Prepare(source=str(corpus / "train" / "manifest.jsonl"), out=str(out / "dataset")), progress=False)

    def _train(self, out: pathlib.Path, clock: Clock) -> dict[Stage, int]:
        """Trains both stages and exports the model; returns the steps."""
        from valle_jax.inference.export import export_model

        if self.steps:
            steps = dict(zip(SHARES, self.steps, strict=True))
            for stage in SHARES:
                self._train_stage(out, clock, stage, steps[stage])
        else:
            steps = self._train_by_the_clock(out, clock)
        export_model(out / "ar", out / "nar", out / "model", which="best")
        return steps

    def _train_by_the_clock(self, out: pathlib.Path, clock: Clock) -> dict[Stage, int]:
        """Trains both stages for as many steps as there is time for; returns the steps."""
        clock.say("measuring how fast this machine trains")
        pace = {stage: self._calibrate(out, stage) for stage in SHARES}
        steps: dict[Stage, int] = {}
        for stage, share in SHARES.items():
            seconds_left = clock.left() - AFTER_TRAINING_STEPS * sum(of.step for of in pace.values())
            steps[stage] = max(MIN_STEPS, math.floor((share * seconds_left - pace[stage].start) / pace[stage].step))
            self._train_stage(out, clock, stage, steps[stage])
            pace[stage] = dataclasses.replace(pace[stage], step=_step_seconds(out / stage))
        return steps

    def _train_stage(self, out: pathlib.Path, clock: Clock, stage: Stage, steps: int) -> None:
        clock.say(f"training the {stage.upper()} decoder, {steps:,} steps")
        _train(self._config(stage, steps), out / "dataset", out / stage)

    def _calibrate(self, out: pathlib.Path, stage: Stage) -> Pace:
        """Of a stage on this machine; from a training that is thrown away."""
        folder, before = out / "calibration", time.time()
        config = self._config(stage, CALIBRATION_STEPS).override({"train.log_every": CALIBRATION_STEPS // 2})
        _train(config, out / "dataset", folder)
        spent, step = time.time() - before, _step_seconds(folder)
        shutil.rmtree(folder)
        return Pace(step, spent - CALIBRATION_STEPS * step)

    def _config(self, stage: Stage, steps: int) -> Config:
        """The preset `digits` for as many steps."""
        settings: dict[str, Any] = {
            "train.steps": steps,
            "train.seed": self.seed,
            "train.evaluate_every": -(-steps // EVALUATIONS),
            "train.checkpoint_every": -(-steps // EVALUATIONS),
            "optimizer.warmup_steps": min(50, steps // 4),
        }
        return get_preset("digits", stage).override(settings)

    def _report(self, out: pathlib.Path, clock: Clock, steps: dict[Stage, int]) -> None:
        from valle_jax.inference.synthesizer import Synthesizer
        from valle_jax.quickstart.report import SHOWN, write_report
        from valle_jax.quickstart.scores import score
        from valle_jax.quickstart.trial import load_cases, speak

        clock.say("synthesising unseen texts in unseen voices")
        tts = Synthesizer.load(out / "model")
        sample_rate = tts.codec.info.sample_rate
        cases = load_cases(out / "corpus" / "test", sample_rate)
        n_controls = min(len(cases), max(SHOWN, len(cases) // 4))  # all that the report shows
        spoken = speak(tts, cases, self.seed, n_controls)
        codes, lengths = tts.codec.encode([case.prompt for case in cases])
        prompts = tts.codec.decode(codes, lengths)
        clock.say("measuring")
        scores = score(cases, prompts, spoken, sample_rate)
        facts = {"wall_seconds": round(clock.spent(), 1), "minutes": self.minutes, "seed": self.seed, "steps": steps}
        write_report(out, cases, spoken, scores, sample_rate, facts)
        clock.say("done")
        print((out / "report.html").resolve())


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a stage trains.

    Attributes:
      step: seconds of a step.
      start: seconds to start and end a training, evaluations included.
    """

    step: float
    start: float


def _train(config: Config, dataset: pathlib.Path, workdir: pathlib.Path) -> None:
    """WorkError where it was told to end before its last step: what follows would be of a model cut short."""
    from valle_jax.train.loop import train

    if train(config, [(dataset, 1.0)], workdir, mesh=ONE_DEVICE).preempted:
        raise WorkError("ended by SIGTERM while training; remove the folder and start again")


def _step_seconds(workdir: pathlib.Path) -> float:
    """Of a training of several steps, by its log; the median, for the last line may be of few."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return statistics.median_low(json.loads(line)["seconds_per_step"] for line in lines if "seconds_per_step" in line)


@dataclasses.dataclass(frozen=True)
class Clock:
    """Says what is going on, and how long it has been and may be.

    Attributes:
      started: when the command, or the script around it, began, in seconds since the epoch.
      minutes: that it may take.
    """

    started: float
    minutes: float

    @classmethod
    def start(cls, minutes: float) -> Clock:
        """Now, or when launch/quickstart.sh began."""
        return cls(float(os.environ.get(STARTED, time.time())), minutes)

    def spent(self) -> float:
        """Seconds since the start."""
        return time.time() - self.started

    def left(self) -> float:
        """Seconds to the end."""
        return self.minutes * 60 - self.spent()

    def say(self, what: str) -> None:
        """A line on stderr."""
        minutes, seconds = divmod(round(self.spent()), 60)
        print(f"[{minutes:02d}:{seconds:02d}] {what}", file=sys.stderr, flush=True)
