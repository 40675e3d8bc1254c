"""Every test sees eight CPU devices, and silent rank promotion is an error. Compiling is cheap."""

import os
import pathlib
import signal
import tempfile

import environments

os.environ.update(environments.with_devices(8))
# PyTorch's threads wait for each other in a loop: beside pytest's other process, two of them take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a process compiled that a test started, the next one reads. Not so pytest's own: to write down the programs of
# hundreds of tests costs memory, and has ended in a segmentation fault of jaxlib.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends pytest as Ctrl-C does, so that the folder goes
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import encodec_models
import jax  # after the flags, which are read once
import object_store
import pytest
from random_model import save_random_model

jax.config.update("jax_compilation_cache_dir", None)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Begun last, they would leave a core idle at the end.
LONGEST = ("test_many_hosts", "test_quickstart", "test_end_to_end", "test_overfit", "test_remote_runs", "test_batch")

SHARED = pathlib.Path(os.environ.get("VALLE_SHARED", pathlib.Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def speech() -> pathlib.Path:
    """The folder of real recordings, which is not part of the repository."""
    folder = SHARED / "speech"
    if not folder.is_dir():
        pytest.skip(f"no speech recordings at {folder}; set VALLE_SHARED to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of goldens and real codes, which is not part of the repository."""
    if not (SHARED / "goldens").is_dir():
        pytest.skip(f"no goldens at {SHARED / 'goldens'}; set VALLE_SHARED to the folder that holds them")
    return SHARED


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> pathlib.Path:
    """A model directory of random decoders, small enough to serve."""
    path = tmp_path_factory.mktemp("model")
    save_random_model(path, max_tokens=320)
    return path


@pytest.fixture(scope="session")
def tts(model_dir):
    """The synthesizer of that directory."""
    from valle_jax.inference.synthesizer import Synthesizer

    return Synthesizer.load(model_dir)


@pytest.fixture(scope="session")
def encodec_weights(tmp_path_factory) -> str:
    """A state dict file of EnCodec 24 kHz with random parameters; needs torch and encodec."""
    pytest.importorskip("torch")
    pytest.importorskip("importlib.metadata").distribution("encodec")
    path = tmp_path_factory.mktemp("encodec") / "random.th"
    encodec_models.save_random_weights(path)
    return str(path)


@pytest.fixture(scope="session")
def v5e():
    """The devices of a v5e:2x2."""
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (the extra `tpu`)")
    # Read when libtpu is loaded: no question to a cloud VM's metadata server, no lock against other processes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices


@pytest.fixture(scope="session")
def object_server():
    """A server like Google Cloud Storage's, to which gs:// goes from here on."""
    with object_store.running() as store:
        pytest.importorskip("gcsfs", reason="the extra `storage` is not installed")
        yield store


@pytest.fixture
def bucket(object_server) -> object_store.ObjectStore:
    """The same with an empty bucket."""
    object_server.objects.clear()
    object_server.requests.clear()
    yield object_server
    object_server.refuse = lambda method, target: None
