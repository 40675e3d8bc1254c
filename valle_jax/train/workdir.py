"""What a work directory says about its run, and whether another start may go on with it.

config.json      the resolved configuration of the newest start
run.json         who the run is: revision, package versions, datasets, mesh, devices, command
vocabulary.json  of the datasets
codec.json       of the datasets
metrics.jsonl, tensorboard/, checkpoints/, plans/
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from valle_jax import config as config_lib
from valle_jax.config import Config, DataConfig, ModelConfig
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError
from valle_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# What a run that was saved before a setting existed has for it: new settings leave everything as it was by default.
_DEFAULTS = {
    f"{section}.{field.name}": field.default
    for section, config in (("model", ModelConfig), ("data", DataConfig))
    for field in dataclasses.fields(config)
}

# How the computation is done, not what is computed: these may change between starts of a run.
_FREE_MODEL_KEYS = ("dtype", "remat", "attention")


def identity(config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued, as JSON with dotted keys.

    `data` is `valle_jax.data.pipeline.data_identity`.
    """
    model = {f"model.{k}": v for k, v in dataclasses.asdict(config.model).items() if k not in _FREE_MODEL_KEYS}
    return {**model, **_dotted("data", data)}


def _dotted(prefix: str, value: Any) -> dict[str, Any]:
    """Nested dicts and lists as one dict."""
    if isinstance(value, list):
        value = {str(i): inner for i, inner in enumerate(value)}
    if isinstance(value, Mapping):
        return {k: v for name, inner in value.items() for k, v in _dotted(f"{prefix}.{name}", inner).items()}
    return {prefix: value}


def check_resumable(workdir: str | pathlib.Path, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """UserError naming the first difference unless a run with identity `mine` may continue one of identity `saved`."""
    for key in sorted(saved.keys() | mine.keys()):
        theirs = saved.get(key, _DEFAULTS.get(key))
        if theirs != mine.get(key):
            raise UserError(
                f"{workdir} holds a run with {key}={theirs}, this command asks for {mine.get(key)}; "
                "resume with the same settings and data, or choose another --workdir"
            )


def write_description(
    workdir: pathlib.Path, config: Config, datasets: Sequence[tuple[Dataset, float]], mesh: Mesh, resumed_from: int
) -> None:
    """Writes config.json, run.json, vocabulary.json and codec.json."""
    info = datasets[0][0].info
    config_lib.save(config, workdir / "config.json")
    run = {
        "command": sys.argv,
        "revision": _git_revision() or _installed_revision(),
        "versions": {"valle-jax": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}},
        "datasets": [
            {"path": str(dataset.path), "fingerprint": dataset.fingerprint, "weight": weight}
            for dataset, weight in datasets
        ],
        "mesh": dict(mesh.shape),
        "device": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
        "resumed_from_step": resumed_from,
        "config": config.to_json(),
    }
    for name, value in (("run", run), ("vocabulary", info.vocabulary.to_json()), ("codec", info.codec.to_json())):
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        (workdir / f"{name}.json").write_text(text, encoding="utf-8")


def _git_revision() -> str | None:
    """Of the source tree that runs, with `-dirty` where it is changed; None for an installed package."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _installed_revision() -> str | None:
    """Of the commit that pip installed, as launch/tpu_vm.sh has it do; None where it was told no repository."""
    try:
        origin = importlib.metadata.distribution("valle-jax").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
