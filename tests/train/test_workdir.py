"""Who a run says that it is, and which run may go on."""

import json

import pytest

from valle_jax.errors import UserError
from valle_jax.train.workdir import _installed_revision, check_resumable


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


def test_a_run_older_than_a_setting_has_its_default():
    mine = {"model.n_layers": 2, "model.activation": "gelu", "data.join_utterances": 1}
    check_resumable("run", {"model.n_layers": 2}, mine)
    with pytest.raises(UserError, match=r"holds a run with model\.activation=gelu, this command asks for relu"):
        check_resumable("run", {"model.n_layers": 2}, mine | {"model.activation": "relu"})
    with pytest.raises(UserError, match=r"model\.removed=1, this command asks for None"):
        check_resumable("run", mine | {"model.removed": 1}, mine)
