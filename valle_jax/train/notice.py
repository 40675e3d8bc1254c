"""The platform's notice that this machine will be taken away, turned into the SIGTERM that `Preemption` waits for.

SLURM and Kubernetes send SIGTERM themselves. A virtual machine of Google's, such as a spot TPU VM, has 30 s from the
moment at which `instance/preempted` of its metadata becomes TRUE (docs.cloud.google.com/compute/docs/instances/spot).
`instance/maintenance-event` is left alone: it comes up to an hour ahead, and a run that saved at once would be started
again on the same machine; the shutdown at its end is a SIGTERM.
"""

from __future__ import annotations

import http.client
import os
import pathlib
import signal
import sys
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any

from valle_jax.parallel import distributed

_PERIOD_SECONDS = 2.0
_PRODUCT = pathlib.Path("/sys/class/dmi/id/product_name")  # how Google's own libraries tell where they run


def metadata_host(environment: Mapping[str, str] = os.environ, product: pathlib.Path = _PRODUCT) -> str | None:
    """Where a virtual machine of Google's asks about itself; None on any other machine, which then asks nobody."""
    if host := environment.get("GCE_METADATA_HOST"):
        return host
    try:
        return "metadata.google.internal" if product.read_text().startswith("Google") else None
    except OSError:
        return None


def is_preempted(host: str) -> bool:
    """Whether the platform takes this machine away; False where it does not answer."""
    url = f"http://{host}/computeMetadata/v1/instance/preempted"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.read().strip() == b"TRUE"
    except (OSError, http.client.HTTPException):
        return False


class Notice:
    """A thread that asks the platform every two seconds, and sends this process SIGTERM when it is to go."""

    def __init__(self) -> None:
        self._host = metadata_host()
        self._stop = threading.Event()

    def __enter__(self) -> Notice:
        if self._host is not None:
            threading.Thread(target=self._watch, args=(self._host,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()

    def _watch(self, host: str) -> None:
        while not self._stop.wait(_PERIOD_SECONDS):
            if is_preempted(host) and not self._stop.is_set():
                print(f"{distributed.describe_process()}: the platform takes this machine away", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                return
