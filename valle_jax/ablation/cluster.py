"""A suite as arrays of jobs: all trainings, then all evaluations, then the report."""

from __future__ import annotations

import pathlib
import shlex
import subprocess
from collections.abc import Sequence
from typing import Literal

from valle_jax.ablation.plan import Plan
from valle_jax.errors import UserError, WorkError

_LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def script(launcher: Literal["slurm", "gke"], plan: Plan, parts: dict[str, list[str]], options: Sequence[str]) -> str:
    """What submits the arrays, for bash.

    Args:
      launcher: whose jobs.
      plan: says how many elements an array has.
      parts: arguments of `valle` for `train`, `evaluate` (where there is speech to evaluate) and `report`.
      options: of the launch script, name=value.

    Raises:
      UserError: an option without `=`, or the launch scripts are not there.
    """
    if not _LAUNCH.is_dir():
        raise UserError(f"--launcher {launcher} needs the launch/ folder of a checkout; pip install -e a clone")
    counts = {"train": len(plan.trainings), "evaluate": len(plan.members), "report": 1}
    given: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--launch {option!r} is not of the form option=value")
        given += [f"--{name}", value]
    lines = ["set -euo pipefail"]
    before = ""
    for part, arguments in parts.items():
        command = [str(_LAUNCH / ("slurm.sh" if launcher == "slurm" else "gke_array.sh")), *given]
        name = f"{plan.suite.name}-{part}".replace("_", "-")
        if launcher == "slurm":
            command += ["--job-name", name, "--array", str(counts[part])]
            # The answer is "Submitted batch job 17".
            after = f' --dependency "afterok:${before}"' if before else ""
            lines.append(f"{part}=$({shlex.join(command)}{after} -- {shlex.join(arguments)})")
            lines.append(f'{part}=${{{part}##* }}; echo "{part}: job ${part}"')
            before = part
        else:
            lines.append(shlex.join([*command, "--name", name, "--array", str(counts[part]), "--", *arguments]))
    return "\n".join(lines)


def submit(text: str) -> None:
    """Runs a script; WorkError where it fails."""
    code = subprocess.run(["bash", "-c", text], check=False).returncode
    if code:
        raise WorkError(f"submitting ended with exit code {code}")
