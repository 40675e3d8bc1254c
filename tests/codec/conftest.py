"""What the tests of codecs share."""

import pytest


@pytest.fixture(scope="session")
def encodec_weights(tmp_path_factory) -> str:
    """A state dict file of EnCodec 24 kHz; needs torch and encodec."""
    pytest.importorskip("torch")
    pytest.importorskip("importlib.metadata").distribution("encodec")
    from encodec_models import save_random_weights

    path = tmp_path_factory.mktemp("encodec") / "random.th"
    save_random_weights(path)
    return str(path)
