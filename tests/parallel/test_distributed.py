"""What the environment says about the other processes. Processes that meet: tests/train/test_many_hosts.py."""

import pytest

from valle_jax.errors import UserError
from valle_jax.parallel.distributed import start_arguments

PLAIN = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        (PLAIN, {"coordinator_address": "10.0.0.1:8476", "num_processes": 4, "process_id": 3}),
        (PLAIN | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        (PLAIN | {"VALLE_DISTRIBUTED": "off"}, None),
        (SLURM, {}),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}, None),  # inside `salloc`, not under `srun`
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, {}),
        ({"VALLE_DISTRIBUTED": "auto"}, {}),
    ],
)
def test_start_arguments(environment, expected):
    assert start_arguments(environment) == expected


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID is set but JAX_COORDINATOR_ADDRESS is not"),
        (PLAIN | {"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID=4 of JAX_NUM_PROCESSES=4"),
        (PLAIN | {"JAX_NUM_PROCESSES": "four"}, "need numbers"),
        (PLAIN | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "is not of the form host:port"),
        ({"VALLE_DISTRIBUTED": "yes"}, "VALLE_DISTRIBUTED='yes' is neither auto nor off"),
    ],
)
def test_incomplete_environment(environment, message):
    with pytest.raises(UserError, match=message):
        start_arguments(environment)
