"""What a suite is: a question, a baseline, and members that differ from it by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any, Literal

from valle_jax.ablation import suites
from valle_jax.config import Stage
from valle_jax.errors import UserError
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.synthesizer import Options

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Member:
    """One line of the table: what it changes. Members whose settings of a stage are equal share its training.

    Attributes:
      name: in the table.
      ar: settings of the AR decoder's training, dotted keys as `valle train --set` takes them.
      nar: of the NAR decoder's.
      both: of both.
      speaking: fields of `Options` and `Sampling`, such as {"top_p": 0.9}.
      systems: what of the model is evaluated, as `valle evaluate --systems` names it; (): the suite's.
      seed: first of the seeds of the random draws: others are other takes of the same.
      expect: of a control, what must come out beside the baseline: "worse" or "same"; "": it is no control.
    """

    name: str
    ar: Settings = dataclasses.field(default_factory=dict)
    nar: Settings = dataclasses.field(default_factory=dict)
    both: Settings = dataclasses.field(default_factory=dict)
    speaking: Settings = dataclasses.field(default_factory=dict)
    systems: tuple[str, ...] = ()
    seed: int = 0
    expect: Literal["", "worse", "same"] = ""

    def settings(self, stage: Stage) -> dict[str, Any]:
        """What it changes in the training of a stage."""
        return {**self.both, **(self.ar if stage == "ar" else self.nar)}

    @property
    def slug(self) -> str:
        """Its name as the name of a folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Suite:
    """What `valle ablate` runs.

    Attributes:
      name: of the suite.
      question: that the table answers.
      baseline: name of the member with which each other is compared.
      members: the lines of the table; one or more of them are controls.
      stages: that are trained; without the NAR there is no speech, only held-out losses.
      systems: what of each model is evaluated, as `valle evaluate --systems` names it.
      speaking: fields of `Options` and `Sampling` of every member; a member's own come on top.
      decisive: the figures that answer the question, by the beginning of their names, and by which the controls are
        judged, such as ("similarity",).
      scales: whether held-out losses are fitted by power laws of parameters and data.
    """

    name: str
    question: str
    baseline: str
    members: tuple[Member, ...]
    stages: tuple[Stage, ...] = ("ar", "nar")
    systems: tuple[str, ...] = ("valle",)
    speaking: Settings = dataclasses.field(default_factory=dict)
    decisive: tuple[str, ...] = ()
    scales: bool = False

    def __post_init__(self):
        names = [member.slug for member in self.members]
        if len(set(names)) < len(names):
            raise UserError(f"suite {self.name}: two members have the same name")
        if self.baseline not in (member.name for member in self.members):
            raise UserError(f"suite {self.name}: the baseline {self.baseline!r} is no member")
        if not any(member.expect for member in self.members):
            raise UserError(f"suite {self.name}: no member is a control (`expect`)")
        for member in self.members:
            for key in sorted(self.speaking_of(member).keys() - set(SPEAKING)):
                raise UserError(f"suite {self.name}, {member.name}: `speaking` knows no {key!r}")

    def member(self, name: str) -> Member:
        """By name."""
        return next(member for member in self.members if member.name == name)

    def systems_of(self, member: Member) -> tuple[str, ...]:
        """What of a member's model is evaluated."""
        return member.systems or self.systems

    def speaking_of(self, member: Member) -> dict[str, Any]:
        """The fields of `Options` and `Sampling` with which a member speaks."""
        return {**self.speaking, **member.speaking}


_SAMPLING = tuple(field.name for field in dataclasses.fields(Sampling))
SPEAKING = (*_SAMPLING, *(f.name for f in dataclasses.fields(Options) if f.name != "sampling"))
"""Keys of `Member.speaking`."""


def speak(options: Options, changes: Settings) -> Options:
    """Options with fields of theirs and of their sampling rules replaced."""
    sampling = {key: value for key, value in changes.items() if key in _SAMPLING}
    others = {key: value for key, value in changes.items() if key not in _SAMPLING}
    return dataclasses.replace(options, sampling=dataclasses.replace(options.sampling, **sampling), **others)


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(suites.__path__))


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or that of a Python file.

    Raises:
      UserError: there is none, the file defines no `SUITE`, or a member of it is wrong.
    """
    path = pathlib.Path(name)
    if name in shipped():
        path = pathlib.Path(suites.__path__[0]) / f"{name}.py"
    elif path.suffix != ".py" or not path.is_file():
        raise UserError(f"no suite {name!r}: give a Python file that defines SUITE, or one of {', '.join(shipped())}")
    spec = importlib.util.spec_from_file_location(f"valle_suite_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    suite = getattr(module, "SUITE", None)
    if not isinstance(suite, Suite):
        raise UserError(f"{path} defines no SUITE = Suite(…)")
    return suite
