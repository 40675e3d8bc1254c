"""Who a run says that it is."""

import json

import pytest

from valle_jax.train.workdir import _installed_revision


@pytest.mark.parametrize(
    "origin, revision",
    [
        ({"url": "https://example.org/valle", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}, "c0ffee"),
        ({"url": "file:///valle", "dir_info": {"editable": True}}, None),
        (None, None),
    ],
)
def test_revision_that_pip_installed(tmp_path, monkeypatch, origin, revision):
    metadata = tmp_path / "valle_jax-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: valle-jax\nVersion: 1\n")
    if origin is not None:
        (metadata / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    assert _installed_revision() == revision
