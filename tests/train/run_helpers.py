"""Whole runs: their configuration, what they write, and runs of several real processes on one machine."""

import json
import socket
import subprocess
import sys
import time

import numpy as np
from environments import with_devices
from train_helpers import tiny_config

from valle_jax.inference.model_dir import flatten
from valle_jax.train.checkpoint import complete_steps, load_params

MESH = {"data": 2}
VARIABLE = ("frames_per_second", "seconds_per_step", "goodput", "input_share")  # keys whose values are times


def loop_config(**settings):
    """Six steps with a checkpoint and a validation after every third, and everything random switched on."""
    defaults = {
        "model__n_layers": 1,
        "model__dropout": 0.1,
        "optimizer__ema_decay": 0.5,
        # Keeps Adam from turning the last bits of a near-zero gradient into a full step.
        "optimizer__eps": 1e-3,
        "train__code_noise": 0.1,
        "train__steps": 6,
        "train__checkpoint_every": 3,
        "train__evaluate_every": 3,
    }
    return tiny_config(**{**defaults, **settings})


def read_metrics(workdir):
    """The lines of metrics.jsonl of training steps and those of validations, without times."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [{name: value for name, value in line.items() if name not in VARIABLE} for line in lines]
    return [line for line in lines if "loss" in line], [line for line in lines if "loss" not in line]


def at_step(step, action):
    """For `make_sampler`: acts at one step, as previews run there."""

    def sampler(current, params):
        if current == step:
            action()
        return []

    return lambda config, info: sampler


def assert_same_params(workdir, other, step):
    for ema in (False, True):
        mine, theirs = (load_params(path, "latest", ema=ema) for path in (workdir, other))
        assert mine.step == theirs.step == step
        for name, value in flatten(mine.params).items():
            np.testing.assert_array_equal(value, flatten(theirs.params)[name], err_msg=name)


STEPS = 40
SETTINGS = {"train__steps": STEPS, "train__checkpoint_every": 5, "train__evaluate_every": 20}
DEVICES = 4  # of all processes together


class Job:
    """The processes of one start of `valle train`."""

    def __init__(self, count, workdir, mesh, *, dataset, stage="ar", heartbeat_seconds=10, **settings):
        config = loop_config(**{"model__stage": stage} | SETTINGS | settings).to_json()
        values = [f"--set={s}.{name}={value}" for s, fields in config.items() for name, value in fields.items()]
        command = [sys.executable, "-m", "valle_jax.cli", "train", "--preset=tiny", f"--stage={stage}"]
        command += [f"--data={dataset}", f"--workdir={workdir}", f"--mesh={mesh}", *values]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = with_devices(DEVICES // count) | {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "VALLE_HEARTBEAT_SECONDS": str(heartbeat_seconds),
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.workdir = workdir
        self.processes = [
            subprocess.Popen(command, env=environment | {"JAX_PROCESS_ID": str(index)}, **pipes)
            for index in range(count)
        ]

    def signal(self, number, victims=None):
        """Sends a signal to the processes of these indices; None: to all."""
        for index in range(len(self.processes)) if victims is None else victims:
            self.processes[index].send_signal(number)

    def wait_for_step(self, step):
        """Until metrics.jsonl has a line of this step or one behind it."""
        path, deadline = self.workdir / "metrics.jsonl", time.monotonic() + 600
        while not (path.exists() and f'"step": {step}, "loss"' in path.read_text()):
            assert time.monotonic() < deadline and self.processes[0].poll() is None, self.finish()
            time.sleep(0.01)

    def wait_for_checkpoint(self, step):
        """Until a checkpoint behind this step is complete: the run goes on while one is written."""
        deadline = time.monotonic() + 600
        while complete_steps(self.workdir)[-1] <= step:
            assert time.monotonic() < deadline and self.processes[0].poll() is None, self.finish()
            time.sleep(0.01)

    def finish(self):
        """Exit codes and standard errors of the processes."""
        try:
            errors = [process.communicate(timeout=300)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], errors


def losses(workdir):
    steps, _ = read_metrics(workdir)
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    return np.array([line["loss"] for line in steps])
