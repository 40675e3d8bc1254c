"""Start-up of a run over many processes, one per host, and what they agree on afterwards.

Which processes belong together is read from the environment:

    JAX_COORDINATOR_ADDRESS=host:port JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0   plain addresses
    SLURM_JOB_ID with SLURM_NTASKS > 1 (`srun`)                              SLURM
    TPU_WORKER_HOSTNAMES with several hosts, or MEGASCALE_COORDINATOR_ADDRESS  GKE and multislice TPUs
    OMPI_COMM_WORLD_SIZE > 1 (`mpirun`)                                      Open MPI
    VALLE_DISTRIBUTED=auto                                                   whatever JAX finds, as on TPU VMs of a pod

VALLE_DISTRIBUTED=off keeps a process for itself.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

import jax
from jax._src.distributed import global_state as _state
from jax.experimental import multihost_utils

from valle_jax.errors import UserError

# After so long without a sign of life from a process the others are ended too.
_HEARTBEAT_SECONDS = 100
_PLAIN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start_arguments(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What to hand to `jax.distributed.initialize`; None where this process works alone.

    Raises:
      UserError: plain addresses that are incomplete or not numbers.
    """
    mode = environment.get("VALLE_DISTRIBUTED", "")
    if mode not in ("", "auto", "off"):
        raise UserError(f"VALLE_DISTRIBUTED={mode!r} is neither auto nor off")
    if mode == "off":
        return None
    given = [name for name in _PLAIN[1:] if name in environment]
    if given:
        missing = [name for name in _PLAIN if name not in environment]
        if missing:
            raise UserError(f"{given[0]} is set but {missing[0]} is not; set all of {', '.join(_PLAIN)}")
        address, count, index = (environment[name] for name in _PLAIN)
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(
                f"JAX_PROCESS_ID={index} of JAX_NUM_PROCESSES={count}: need numbers, the first below the second"
            )
        if ":" not in address:
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address!r} is not of the form host:port")
        if int(count) == 1:
            return None
        return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
    several = (
        _count(environment, "SLURM_NTASKS") > 1 and "SLURM_JOB_ID" in environment and "SLURM_PROCID" in environment,
        _count(environment, "OMPI_COMM_WORLD_SIZE") > 1,
        "," in environment.get("TPU_WORKER_HOSTNAMES", ""),
        "MEGASCALE_COORDINATOR_ADDRESS" in environment,
        mode == "auto",
    )
    return {} if any(several) else None


def _count(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 0


def start() -> None:
    """Joins the other processes of the run, if there are any; before anything else that uses JAX's devices.

    Raises:
      UserError: see `start_arguments`; or JAX found no cluster where VALLE_DISTRIBUTED=auto asked for one.
    """
    arguments = start_arguments(os.environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    heartbeat = int(os.environ.get("VALLE_HEARTBEAT_SECONDS", _HEARTBEAT_SECONDS))
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=heartbeat)
    except ValueError as error:
        raise UserError(f"the processes of this run could not be found from the environment: {error}") from None


def describe_process() -> str:
    """`process 2 of 4 on host-name`."""
    return f"process {jax.process_index()} of {jax.process_count()} on {os.uname().nodename}"


class Preemption:
    """Tells at which step a run that is being preempted saves and stops: at the same one on every host.

    Alone, a SIGTERM of this process decides. Among several, JAX's coordination service takes the SIGTERM of any of them
    and proposes a step that none has reached yet.
    """

    def __init__(self) -> None:
        self._terminated = threading.Event()
        self._previous: Any = None
        self._handles = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Preemption:
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        return self

    def __exit__(self, *_: Any) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; every host must ask at every step."""
        if jax.process_count() == 1:
            return self._terminated.is_set()
        return multihost_utils.reached_preemption_sync_point(step)


# The coordination service keeps a small key-value store; JAX offers it to libraries through this handle only.
_BOARD = "valle/process/"


def is_shared() -> bool:
    """Whether this process has joined others."""
    return _state.client is not None


def put_up(text: str) -> None:
    """Shows a line to the other processes, in place of this one's last."""
    assert _state.client is not None
    _state.client.key_value_set(f"{_BOARD}{jax.process_index()}", text, allow_overwrite=True)


def read_board(*, timeout_seconds: float) -> list[tuple[int, str]]:
    """(process, its last line) of all that have put one up; [] alone or where the coordinator does not answer."""
    found: list[tuple[int, str]] = []

    def ask() -> None:
        assert _state.client is not None
        entries = _state.client.key_value_dir_get(_BOARD)
        found.extend((int(key.rpartition("/")[2]), text) for key, text in entries)

    if is_shared():
        thread = threading.Thread(target=ask, daemon=True)  # without a coordinator the question never returns
        thread.start()
        thread.join(timeout_seconds)
    return sorted(found)
