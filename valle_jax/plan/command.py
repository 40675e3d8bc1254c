"""The verb `valle plan`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from valle_jax.config import Config, Stage, parse_settings
from valle_jax.configs import get_preset
from valle_jax.errors import UserError

if TYPE_CHECKING:
    from valle_jax.plan.flops import Speech
    from valle_jax.plan.topology import Topology

# What a dataset would say: an IPA vocabulary and EnCodec at 6 kbit/s.
_SIZES = {"model.n_symbols": 200, "model.codebooks": 8, "model.codebook_size": 1024}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Compile a training step or a sampler for chips that need not be there, and say what it costs on them.

    Sizes that come from a dataset are taken as 200 symbols and 8 codebooks of 1024 unless --set says otherwise.

    Example: valle plan --preset base --stage ar --topology v5e:16x16 --mesh data=64,fsdp=4 --rows 1024
    """

    preset: str
    """Configuration to start from: tiny, digits, small, base, large or valle2."""
    stage: Stage
    """ar: the first codebook; nar: the others."""
    topology: str
    """TPU generation and shape, such as v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:8x8; or cpu:8, gpu:4 of this machine."""
    slices: int = 1
    """TPU slices of that topology, joined by the data centre's network."""
    mesh: str | None = None
    """Devices along each axis, such as data=64,fsdp=4; default: all devices on data."""
    rows: int | None = None
    """Packed rows of a global batch; sampling: utterances side by side on a chip; default: the preset's, or the
    paper's batch as near as the mesh allows."""
    remat: Literal["none", "dots", "full"] | None = None
    """What the backward pass recomputes; default: the preset's."""
    what: Literal["train", "sample"] = "train"
    """The training step, or the sampler of the stage on one chip."""
    prompt_tokens: int = 512
    """Sampling: tokens of text and prompt in a row."""
    frames: int = 1024
    """Sampling: acoustic frames to generate."""
    seconds: float = 12.3
    """Training: length of an utterance, of which the cost of attention depends."""
    search: bool = False
    """Try meshes and remat policies, and rank those that fit."""
    candidates: int = 4
    """Search: how many of the most promising are compiled."""
    json: str | None = None
    """File for the same as JSON."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Configuration override key=value, such as data.row_length=4096; give it again for more."""

    def run(self) -> None:
        """Prints the plan."""
        config = get_preset(self.preset, self.stage).override(self._settings())
        for name in ("rows", "frames", "prompt_tokens", "candidates", "slices", "seconds"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} {value} must be positive")
        if self.search and (self.what == "sample" or self.mesh or self.remat):
            raise UserError("--search chooses mesh and remat of a training step: leave out --mesh, --remat and --what")

        # Only now, so that mistakes in the arguments are answered at once.
        import jax

        from valle_jax.parallel.mesh import parse_mesh
        from valle_jax.plan.flops import Speech
        from valle_jax.plan.topology import get_topology
        from valle_jax.plan.train_plan import with_rows

        mesh = parse_mesh(self.mesh) if self.mesh else None
        if not self.topology.startswith("gpu"):
            jax.config.update("jax_platforms", "cpu")  # the accelerators of this machine are not needed
        topology = get_topology(self.topology, self.slices)
        speech = Speech(seconds=self.seconds, frames_per_token=config.model.codes_per_step)
        if self.what == "sample":
            self._sample(config, topology)
        elif self.search:
            self._search(with_rows(config, topology, None, speech), topology, speech)
        else:
            self._train(with_rows(config, topology, mesh, speech), topology, mesh, speech)

    def _train(self, config: Config, topology: Topology, mesh: dict[str, int] | None, speech: Speech) -> None:
        from valle_jax.plan.report import train_report
        from valle_jax.plan.train_plan import plan_training

        plan = plan_training(config, topology, mesh, speech)
        print(train_report(plan))
        self._write(plan.to_json())

    def _search(self, config: Config, topology: Topology, speech: Speech) -> None:
        from valle_jax.plan.report import train_report
        from valle_jax.plan.search import search, search_report

        result = search(config, topology, speech, candidates=self.candidates)
        print(f"{search_report(result)}\n\n{train_report(result.plans[0])}")
        self._write([plan.to_json() for plan in result.plans])

    def _sample(self, config: Config, topology: Topology) -> None:
        from valle_jax.plan.sample_plan import plan_sampling, sample_report

        rows = self.rows or 16
        plan = plan_sampling(config, topology, rows=rows, prompt_tokens=self.prompt_tokens, frames=self.frames)
        print(sample_report(plan))
        self._write(plan.to_json())

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {**_SIZES, **parse_settings(self.set)}
        if self.rows is not None:
            settings["train.rows"] = self.rows
        if self.remat is not None:
            settings["model.remat"] = self.remat
        return settings

    def _write(self, value: object) -> None:
        if self.json is not None:
            try:
                pathlib.Path(self.json).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--json {self.json}: {error.strerror}") from None
