"""A small model and the topologies that plans are made for."""

import jax
import pytest
from packed import tiny_config

from valle_jax.config import Config, DataConfig, TrainConfig
from valle_jax.plan.topology import get_topology


@pytest.fixture(scope="module", autouse=True)
def optimized():
    """What is counted in programs is counted in those that users get."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def make_config():
    """A configuration of the small model; keyword arguments go to the model, `train` and `data` are dicts."""

    def make(stage="ar", *, train=None, data=None, **model):
        return Config(
            model=tiny_config(stage, **model),
            data=DataConfig(**{"row_length": 128, **(data or {})}),
            train=TrainConfig(**{"rows": 8, **(train or {})}),
        )

    return make


@pytest.fixture(scope="session")
def cpu8():
    """The eight devices that tests force on the CPU."""
    return get_topology("cpu:8")


@pytest.fixture(scope="session")
def tpu():
    """`get_topology`, where the TPU compiler is installed."""
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (the extra `plan`)")
    return get_topology
