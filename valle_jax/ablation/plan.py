"""What a suite comes to: the stages to train, each once, and the members to evaluate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from valle_jax.ablation.suite import Member, Settings, Suite
from valle_jax.config import Config, Stage
from valle_jax.configs import get_preset
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError
from valle_jax.train.command import parse_data


def key_of(value: Any) -> str:
    """Eight hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _unlike_default(config: Config) -> dict[str, Any]:
    """Settings that are not the default ones, so that a program with one switch more knows its trainings again."""
    mine, default = config.to_json(), Config().to_json()
    return {
        f"{section}.{name}": value
        for section, fields in mine.items()
        for name, value in fields.items()
        if value != default[section][name]
    }


@dataclasses.dataclass(frozen=True)
class Training:
    """What all members are trained on and with.

    Attributes:
      preset: whose configuration the members change.
      data: dataset directories, DIR or DIR:WEIGHT.
      settings: of each stage, over the preset's.
      mesh: as `valle train --mesh` takes it; None: all devices.
      codec_weights: file of the codec's weights, where they are not to be fetched.
    """

    preset: str
    data: tuple[str, ...]
    settings: Mapping[Stage, Settings]
    mesh: str | None = None
    codec_weights: str | None = None

    def fingerprints(self) -> list[tuple[str, float]]:
        """Content hash and weight of each dataset; UserError where one is none."""
        return [(Dataset.open(path).fingerprint, weight) for path, weight in map(parse_data, self.data)]


@dataclasses.dataclass(frozen=True)
class StageRun:
    """A training, shared by the members that ask for the same.

    Attributes:
      stage: which decoder.
      config: before the dataset fills in its sizes.
      changes: over the preset's, as `--set` takes them.
      members: that use it.
      workdir: of `valle train`.
    """

    stage: Stage
    config: Config
    changes: Settings
    members: tuple[str, ...]
    workdir: pathlib.Path

    @property
    def name(self) -> str:
        """Such as `ar-1a2b3c4d`."""
        return self.workdir.name

    def is_done(self) -> bool:
        """Whether its last checkpoint is there."""
        from valle_jax.train.checkpoint import complete_steps

        return self.config.train.steps in complete_steps(self.workdir)

    def command(self, training: Training) -> list[str]:
        """The arguments of `valle`."""
        where = {"--mesh": training.mesh, "--codec-weights": training.codec_weights}
        return [
            *("train", "--preset", training.preset, "--stage", self.stage, "--workdir", str(self.workdir)),
            *(part for path in training.data for part in ("--data", path)),
            *(part for key, value in self.changes.items() for part in ("--set", f"{key}={value}")),
            *(part for option, value in where.items() if value is not None for part in (option, value)),
        ]


@dataclasses.dataclass(frozen=True)
class MemberRun:
    """A member and where its parts are.

    Attributes:
      member: of the suite.
      stages: the trainings that it uses.
      model: model directory, shared by members of the same trainings.
    """

    member: Member
    stages: Mapping[Stage, StageRun]
    model: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is to be done for a suite.

    Attributes:
      suite: that is run.
      trainings: each once, the most wanted first.
      members: in the suite's order.
    """

    suite: Suite
    trainings: tuple[StageRun, ...]
    members: tuple[MemberRun, ...]


def make_plan(suite: Suite, training: Training, out: pathlib.Path) -> Plan:
    """Resolves every member's configuration and finds the trainings that are equal.

    Raises:
      UserError: unknown preset, key or value, or no dataset.
    """
    data = training.fingerprints()
    runs: dict[str, StageRun] = {}
    members = []
    for member in suite.members:
        mine: dict[Stage, StageRun] = {}
        for stage in suite.stages:
            changes = {**training.settings[stage], **member.settings(stage)}
            try:
                config = get_preset(training.preset, stage).override(changes)
            except UserError as error:
                raise UserError(f"suite {suite.name}, {member.name}: {error}") from None
            name = f"{stage}-{key_of([_unlike_default(config), data])}"
            users = (*runs[name].members, member.name) if name in runs else (member.name,)
            runs[name] = mine[stage] = StageRun(stage, config, changes, users, out / "runs" / name)
        model = "-".join(run.name for run in mine.values())
        members.append(MemberRun(member, mine, out / "models" / model))
    trainings = sorted(runs.values(), key=lambda run: -len(run.members))
    final = [dataclasses.replace(m, stages={s: runs[r.name] for s, r in m.stages.items()}) for m in members]
    return Plan(suite, tuple(trainings), tuple(final))
