"""The verb `valle train`."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Annotated

import tyro

from valle_jax.config import Stage, parse_settings
from valle_jax.configs import get_preset
from valle_jax.errors import RestartError, UserError


def parse_data(text: str) -> tuple[str, float]:
    """`DIR:WEIGHT` or `DIR`, whose weight is 1; UserError for a weight that is not positive."""
    path, colon, weight = text.rpartition(":")
    try:
        value = float(weight) if colon else 1.0
    except ValueError:  # a colon in the path
        return text, 1.0
    if not 0 < value < float("inf"):
        raise UserError(f"--data {text}: the weight must be positive and finite")
    return (path, value) if colon else (text, value)


@dataclasses.dataclass(frozen=True)
class Train:
    """Train one stage; the same command again goes on from the newest checkpoint in the work directory.

    On several hosts start the same command on each; docs/launching.md says how they find each other. SIGTERM, on any of
    them, saves and ends all with exit code 75: start again.

    Example: valle train --preset tiny --stage ar --data DATASET --workdir runs/ar --steps 2000 --set model.n_layers=6
    """

    preset: str
    """Configuration to start from: tiny, digits, small, base, large or valle2."""
    stage: Stage
    """ar: the first codebook; nar: the others."""
    data: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Dataset directory, or DIR:WEIGHT; give it again to mix several."""
    workdir: str
    """Where checkpoints, metrics and the run's description go."""
    steps: int | None = None
    """Steps to train, and where the learning rate reaches zero; default: the preset's."""
    mesh: str | None = None
    """Devices along each axis, such as data=4,fsdp=2,tensor=1; default: all devices on data."""
    init_from: str | None = None
    """Model directory whose parameters a new run starts from."""
    codec_weights: str | None = None
    """File of the codec's weights, where they are not to be fetched: for audio previews and model.code_init=codec."""
    profile_steps: str | None = None
    """FIRST:END; the trace of these steps goes to WORKDIR/profile."""
    compile_cache: str | None = None
    """Folder of compiled programs, so that a restart need not compile; default: WORKDIR/compile_cache."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Configuration override key=value, such as model.dropout=0; give it again for more."""

    def run(self) -> None:
        """Trains and says where the run stands."""
        if not self.data:
            raise UserError("--data DIR is missing; `valle prepare` makes a dataset")
        datasets = [parse_data(text) for text in self.data]
        settings = parse_settings(self.set)
        if self.steps is not None:
            settings["train.steps"] = str(self.steps)
        config = get_preset(self.preset, self.stage).override(settings)

        # Only now, so that mistakes in the arguments are answered at once.
        import jax

        from valle_jax.inference.previews import make_previews
        from valle_jax.parallel import distributed
        from valle_jax.parallel.mesh import parse_mesh
        from valle_jax.train.loop import train
        from valle_jax.train.profiler import parse_steps

        mesh = parse_mesh(self.mesh) if self.mesh else None
        profile_steps = parse_steps(self.profile_steps) if self.profile_steps else None
        if self.compile_cache or "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", self.compile_cache or f"{self.workdir}/compile_cache")
        distributed.start()
        if jax.process_index() == 0:  # the others would say the same, such as which attention was chosen, and why
            logging.basicConfig(format="%(message)s")
            logging.getLogger("valle_jax").setLevel(logging.INFO)
        summary = train(
            config,
            datasets,
            self.workdir,
            mesh=mesh,
            init_from=self.init_from,
            codec_weights=self.codec_weights,
            make_sampler=make_previews(datasets[0][0], self.codec_weights),
            profile_steps=profile_steps,
        )
        if summary.preempted:
            raise RestartError(f"{self.workdir}: preempted, saved at step {summary.step}; the same command goes on")
        if jax.process_index() == 0:
            print(f"{self.workdir}: trained to step {summary.step}")
