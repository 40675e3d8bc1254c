"""A member's model directory, what it says, and what is measured on that."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tempfile

from valle_jax.ablation.plan import MemberRun, key_of
from valle_jax.ablation.suite import Suite, speak
from valle_jax.configs import get_options


@dataclasses.dataclass(frozen=True)
class Listening:
    """How all members are evaluated; see `valle evaluate`.

    Attributes:
      corpus: recordings that the trials are made of.
      protocol: rule of the trials.
      measures: names; (): the default ones.
      seeds: takes of each trial.
      limit: trials at most; None: all.
      preset: whose options for speaking the members change.
      codec_weights: file of the codec's weights, where they are not to be fetched.
    """

    corpus: str
    protocol: str
    measures: tuple[str, ...]
    seeds: int
    limit: int | None
    preset: str
    codec_weights: str | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Of a member.

    Attributes:
      run: the member and its trainings.
      suite: it belongs to.
      how: it is evaluated.
      out: folder that suites share.
    """

    run: MemberRun
    suite: Suite
    how: Listening
    out: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        """Of the results; another one if anything that decides them is another."""
        member = self.run.member
        speaking, systems = self.suite.speaking_of(member), self.suite.systems_of(member)
        what = [dataclasses.asdict(self.how), speaking, systems, member.seed, self.run.model.name]
        return self.out / self.suite.name / f"{member.slug}-{key_of(what)}"

    def is_done(self) -> bool:
        """Whether the results are there; they are written last."""
        return (self.folder / "results.json").is_file()

    def perform(self) -> None:
        """Exports the model if no other member did, and evaluates it; what is cached is not computed again."""
        from valle_jax.evaluation.evaluate import evaluate

        member = self.run.member
        self._export()
        evaluate(
            self.run.model,
            self.how.protocol,
            self.how.corpus,
            self.folder,
            systems=self.suite.systems_of(member),
            measures=self.how.measures or None,
            seeds=self.how.seeds,
            first_seed=member.seed,
            limit=self.how.limit,
            options=speak(get_options(self.how.preset), self.suite.speaking_of(member)),
            cache=self.out / "cache",  # members that say the same, of whichever suite, have it once
            codec_weights=self.how.codec_weights,
        )

    def _export(self) -> None:
        """Writes the model directory at once or not at all: members that share it may run side by side."""
        from valle_jax.inference.export import export_model

        if self.run.model.is_dir():
            return
        self.run.model.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(dir=self.run.model.parent, prefix="partial-"))
        export_model(self.run.stages["ar"].workdir, self.run.stages["nar"].workdir, partial)
        try:
            os.rename(partial, self.run.model)
        except OSError:
            shutil.rmtree(partial)
            if not self.run.model.is_dir():
                raise
