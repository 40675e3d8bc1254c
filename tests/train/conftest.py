"""The dataset that the training tests share, and what the compiler did once."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from train_helpers import write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A dataset of random codes, shared and read only."""
    return write_dataset(tmp_path_factory.mktemp("data") / "random")


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """A folder of compiled programs: most of these tests run the same few, and compiling is most of their time."""
    folder = tmp_path_factory.mktemp("compiled")
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    compilation_cache.reset_cache()
    for name, value in settings.items():
        jax.config.update(name, value)
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
