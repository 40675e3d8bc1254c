"""A machine that is announced to go away saves and ends, as after SIGTERM; the announcer is an HTTP server."""

import http.server
import threading
import time

import pytest
from run_helpers import MESH, at_step, loop_config

from valle_jax.train import notice
from valle_jax.train.checkpoint import complete_steps
from valle_jax.train.loop import train


@pytest.fixture
def metadata(monkeypatch):
    """Entries of a metadata server under `instance/`, to be changed; the server is what this machine finds."""
    entries = {"preempted": "FALSE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            value = entries.get(self.path.removeprefix("/computeMetadata/v1/instance/"))
            self.send_response(404 if value is None or self.headers["Metadata-Flavor"] != "Google" else 200)
            self.end_headers()
            self.wfile.write((value or "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        yield entries
        server.shutdown()


def test_what_the_platform_says(metadata):
    host = notice.metadata_host()
    assert not notice.is_preempted(host)
    metadata["preempted"] = "TRUE"
    assert notice.is_preempted(host)
    del metadata["preempted"]
    assert not notice.is_preempted(host)  # 404
    assert not notice.is_preempted("127.0.0.1:1")  # nobody answers


def test_other_machines_ask_nobody(tmp_path):
    product = tmp_path / "product_name"
    assert notice.metadata_host({}, product) is None
    product.write_text("Standard PC\n")
    assert notice.metadata_host({}, product) is None
    product.write_text("Google Compute Engine\n")
    assert notice.metadata_host({}, product) == "metadata.google.internal"


def test_a_run_that_is_announced_to_end_saves_and_ends(metadata, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notice, "_PERIOD_SECONDS", 0.05)

    def announce():
        metadata["preempted"] = "TRUE"
        time.sleep(1.0)

    settings = loop_config(train__sample_every=2)
    summary = train(settings, [(dataset, 1.0)], tmp_path, mesh=MESH, make_sampler=at_step(2, announce))
    assert (summary.step, summary.preempted) == (3, True) and complete_steps(tmp_path) == [3]
    assert "the platform takes this machine away" in capsys.readouterr().err
