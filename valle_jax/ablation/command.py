"""The verb `valle ablate`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from valle_jax.config import Stage, parse_settings
from valle_jax.errors import UserError

if TYPE_CHECKING:
    from valle_jax.ablation.evaluation import Evaluation
    from valle_jax.ablation.local import Task
    from valle_jax.ablation.plan import MemberRun, Plan, Training

_INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")  # set by SLURM, and by Kubernetes' indexed jobs


@dataclasses.dataclass(frozen=True)
class Ablate:
    """Train, evaluate and compare the members of a suite; the same command again goes on where it was.

    SUITE is one of the shipped ones, which docs/ablations.md lists, or a Python file. Writes report.md, report.html and
    results.json to OUT/SUITE; suites with the same OUT share trainings.

    Example: valle ablate p1_nar_prompts --data DATASET --corpus CORPUS --out ablations --preset tiny
    """

    suite: tyro.conf.Positional[str]
    """A shipped suite, or a Python file that defines SUITE."""
    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Dataset directory to train on, or DIR:WEIGHT; give it again to mix several."""
    out: str
    """Folder to write; suites may share it."""
    corpus: str | None = None
    """Recordings from which the protocol makes its trials, as `valle evaluate --data` takes them."""
    preset: str = "tiny"
    """Configuration that the members change."""
    protocol: str = "p1-librispeech"
    """Of the evaluation, as `valle evaluate --protocol` takes it."""
    measures: tuple[str, ...] = ()
    """Of the evaluation, as `valle evaluate --measures` takes them; default: those of `valle evaluate`."""
    steps: str | None = None
    """Steps to train, AR,NAR or one number for both; default: the preset's."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Configuration override key=value for all members and both stages; give it again for more."""
    set_ar: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Likewise, for the AR stage."""
    set_nar: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Likewise, for the NAR stage."""
    seeds: int = 3
    """Takes of every trial, each with a seed of its own."""
    limit: int | None = None
    """Evaluate so many trials at most."""
    mesh: str | None = None
    """Devices along each axis for training, such as data=4,fsdp=2; default: all devices on data."""
    jobs: int = 1
    """Local: processes side by side, each with its share of the GPUs or CPU cores."""
    launcher: Literal["local", "slurm", "gke"] = "local"
    """What runs the parts; slurm and gke submit arrays of jobs."""
    launch: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Option of launch/slurm.sh or launch/gke_array.sh, such as partition=gpu; give it again for more."""
    codec_weights: str | None = None
    """File of the codec's weights, where they are not to be fetched."""
    only: str | None = None
    """Do one part only: train, evaluate or report; train:N and evaluate:N the N-th; default N: the array's index."""
    dry_run: bool = False
    """Print what would be run."""

    def run(self) -> None:
        """Runs the suite, or a part of it."""
        from valle_jax.ablation.plan import make_plan
        from valle_jax.ablation.suite import load_suite

        suite = load_suite(self.suite)
        if "nar" in suite.stages and self.corpus is None:
            raise UserError(f"--corpus is missing: suite {suite.name} is evaluated on recordings")
        plan = make_plan(suite, self.training(), pathlib.Path(self.out))
        if self.only is not None:
            self._part(plan)
        elif self.launcher != "local":
            self._submit(plan)
        elif self.dry_run:
            print(self._description(plan))
        else:
            self._all(plan)

    def training(self) -> Training:
        """What the command line says of all trainings."""
        from valle_jax.ablation.plan import Training

        if not self.data:
            raise UserError("--data DIR is missing; `valle prepare` makes a dataset")
        own: dict[Stage, tuple[str, ...]] = {"ar": self.set_ar, "nar": self.set_nar}
        settings = {stage: parse_settings([*self.set, *mine]) for stage, mine in own.items()}
        if self.steps is not None:
            counts = self.steps.split(",")
            if len(counts) > 2 or not all(count.isdecimal() and int(count) for count in counts):
                raise UserError(f"--steps {self.steps} is not AR,NAR nor one number")
            settings["ar"]["train.steps"], settings["nar"]["train.steps"] = counts[0], counts[-1]
        return Training(self.preset, self.data, settings, self.mesh, self.codec_weights)

    def arguments(self, only: str | None = None) -> list[str]:
        """The command line that this is, for a part of it."""
        words = ["ablate", self.suite]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("suite", "only", "dry_run", "launcher", "launch", "jobs") or value == field.default:
                continue
            option = f"--{field.name.replace('_', '-')}"
            if field.name == "measures":
                words += [option, *value]
            else:
                for item in value if isinstance(value, tuple) else (value,):
                    words += [option, str(item)]
        return [*words, *(["--only", only] if only else [])]

    def _tasks(self, plan: Plan) -> list[Task]:
        """Trainings, then evaluations."""
        return [*self._train_tasks(plan), *self._evaluate_tasks(plan)]

    def _train_tasks(self, plan: Plan) -> list[Task]:
        from valle_jax.ablation.local import Task

        training = self.training()
        return [Task(run.name, tuple(run.command(training)), (), run.is_done) for run in plan.trainings]

    def _evaluate_tasks(self, plan: Plan) -> list[Task]:
        from valle_jax.ablation.local import Task

        if "nar" not in plan.suite.stages:
            return []
        return [
            Task(
                f"{plan.suite.name}-{run.member.slug}",
                tuple(self.arguments(f"evaluate:{number}")),
                tuple(training.name for training in run.stages.values()),
                self._evaluation(plan, run).is_done,
            )
            for number, run in enumerate(plan.members)
        ]

    def _description(self, plan: Plan) -> str:
        lines = [f"{plan.suite.name}: {plan.suite.question}"]
        for run in plan.trainings:
            lines.append(f"  {run.name}, {run.config.train.steps:,} steps, for {', '.join(run.members)}")
        return "\n".join([*lines, *(shlex.join(["valle", *task.command]) for task in self._tasks(plan))])

    def _all(self, plan: Plan) -> None:
        from valle_jax.ablation.local import run_all

        out = pathlib.Path(self.out)
        # One folder of compiled programs for all processes: members differ in little.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((out / "compile_cache").absolute()))
        run_all(self._tasks(plan), out / "logs", self.jobs)
        self._report(plan)

    def _submit(self, plan: Plan) -> None:
        from valle_jax.ablation import cluster

        parts = ["train", *(["evaluate"] if "nar" in plan.suite.stages else []), "report"]
        arguments = {part: self.arguments(part) for part in parts}
        text = cluster.script("slurm" if self.launcher == "slurm" else "gke", plan, arguments, self.launch)
        if self.dry_run:
            print(text)
        else:
            cluster.submit(text)

    def _part(self, plan: Plan) -> None:
        """A part, as an element of an array or a process of a local run does it."""
        from valle_jax.ablation.local import run_here

        assert self.only is not None
        part, _, number = self.only.partition(":")
        number = number or next((os.environ[name] for name in _INDEX_VARIABLES if name in os.environ), "")
        # A job's other processes are there for its training.
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        if part == "report":
            if is_first:
                self._report(plan)
            return
        runs = {"train": plan.trainings, "evaluate": plan.members}.get(part, ())
        if not number.isdecimal() or int(number) >= len(runs):
            raise UserError(
                f"--only {self.only}: no such part; train:N (N < {len(plan.trainings)}), evaluate:N "
                f"(N < {len(plan.members)}) and report are"
            )
        if part == "train":
            run_here(self._train_tasks(plan)[int(number)])
        elif is_first:
            self._evaluation(plan, plan.members[int(number)]).perform()

    def _evaluation(self, plan: Plan, run: MemberRun) -> Evaluation:
        from valle_jax.ablation.evaluation import Evaluation, Listening

        how = Listening(
            self.corpus or "",
            self.protocol,
            self.measures,
            self.seeds,
            self.limit,
            self.preset,
            self.codec_weights,
        )
        return Evaluation(run, plan.suite, how, pathlib.Path(self.out))

    def _report(self, plan: Plan) -> None:
        from valle_jax.ablation.comparison import compare
        from valle_jax.ablation.report import write_report
        from valle_jax.ablation.training_record import read_training
        from valle_jax.data.info import DatasetInfo
        from valle_jax.train.command import parse_data

        out = pathlib.Path(self.out) / plan.suite.name
        infos = [DatasetInfo.load(parse_data(path)[0]) for path in self.data]
        trainings = {run.name: read_training(run, infos) for run in plan.trainings}
        hears = "nar" in plan.suite.stages
        evaluations = {run.member.name: self._evaluation(plan, run) for run in plan.members} if hears else {}
        facts = {"command": shlex.join(["valle", *self.arguments()])}
        hours = sum(info.totals["hours"] for info in infos)
        write_report(out, compare(plan, trainings, evaluations, out, hours, facts))
        print(out / "report.html")
