"""The dataset that the training tests share."""

import pytest
from train_helpers import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A dataset of random codes, shared and read only."""
    return write_dataset(tmp_path_factory.mktemp("data") / "random")
