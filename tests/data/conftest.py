"""The dataset that most tests of the input pipeline read."""

import pytest
import small_datasets

from valle_jax.data.dataset import Dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Dataset:
    """150 utterances in three shards, a tenth of them held out."""
    splits = ["valid_utterance" if i % 10 == 3 else "train" for i in range(150)]
    folder = tmp_path_factory.mktemp("data") / "set"
    return small_datasets.write(folder, small_datasets.random_utterances(150), splits, n_shards=3)
