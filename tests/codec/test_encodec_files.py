"""Where EnCodec's weights come from: a hub that answers, one that does not, files of other hashes."""

import functools
import hashlib
import http.server
import threading

import pytest

from valle_jax.codec import encodec_files
from valle_jax.errors import UserError

CONTENT = b"weights" * 1000


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that has a file of the official name, and an empty cache."""
    (tmp_path / "hub").mkdir()
    digest = hashlib.sha256(CONTENT).hexdigest()
    name = f"encodec_24khz-{digest[:8]}.th"
    (tmp_path / "hub" / name).write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "hub")
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(encodec_files, "HUB_FILE", name)
        monkeypatch.setattr(encodec_files, "_HUB_URL", f"http://127.0.0.1:{server.server_port}/{name}")
        yield tmp_path / "hub" / name, digest
        server.shutdown()


def test_fetched_once_and_kept(hub, tmp_path):
    file, digest = hub
    path, found = encodec_files.find(None)
    assert path == tmp_path / "cache" / "hub" / "checkpoints" / file.name and path.read_bytes() == CONTENT
    assert found == digest[:16]
    file.unlink()
    assert encodec_files.find(None) == (path, found)


def test_a_hub_without_the_file_leaves_nothing_behind(hub, tmp_path):
    hub[0].unlink()
    with pytest.raises(UserError, match=f"cannot get EnCodec's weights from its hub .*404.*{hub[0].name}"):
        encodec_files.find(None)
    assert not list((tmp_path / "cache" / "hub" / "checkpoints").iterdir())


def test_a_damaged_download_is_named(hub):
    hub[0].write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="is damaged: its SHA-256 starts with"):
        encodec_files.find(None)


def test_a_given_file(tmp_path):
    (tmp_path / "mine.th").write_bytes(CONTENT)
    assert encodec_files.find(tmp_path / "mine.th")[1] == hashlib.sha256(CONTENT).hexdigest()[:16]
    with pytest.raises(UserError, match="cannot read EnCodec weights"):
        encodec_files.find(tmp_path / "missing.th")
