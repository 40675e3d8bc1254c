"""What the training tests share."""

import pytest
from checkpoint_helpers import DECODER, OPTIMIZER
from train_helpers import write_dataset

from valle_jax.parallel.mesh import make_mesh
from valle_jax.train.state import init_state


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A dataset of random codes, shared and read only."""
    return write_dataset(tmp_path_factory.mktemp("data") / "random")


@pytest.fixture(scope="module")
def fresh():
    """A state over two devices."""
    return init_state(DECODER, OPTIMIZER, make_mesh({"fsdp": 2}), 0, ema=True)
