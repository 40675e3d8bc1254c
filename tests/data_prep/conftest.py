"""A small corpus of generated sounds, and the dataset that it gives."""

import pathlib

import pytest
from small_corpora import SHARDS_OF_TWO, make_corpus

from data_prep.prepare import Prepare, prepare


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pathlib.Path:
    """The manifest of 30 utterances of 3 speakers."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "sounds", 30)


@pytest.fixture(scope="session")
def unbroken(corpus, tmp_path_factory) -> pathlib.Path:
    """The corpus prepared at one go by one process, with the options SHARDS_OF_TWO."""
    pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
    out = tmp_path_factory.mktemp("prepared") / "unbroken"
    prepare(Prepare(source=str(corpus), out=str(out), processes=1, **SHARDS_OF_TWO), progress=False)
    return out
