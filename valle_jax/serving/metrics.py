"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"valle_{name}", what, labels, registry=self._registry)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(f"valle_{name}_seconds", what, buckets=_SECONDS, registry=self._registry)

        self.responses = counter("responses", "Responses by path and status code.", "path", "status")
        self.audio_seconds = counter("audio_seconds", "Seconds of speech given out.")
        self.bad_takes = counter("bad_takes", "Takes with problems, those that were drawn again included.")
        self.redrawn = counter("redrawn_takes", "Takes that were drawn again.")
        self.with_problems = counter("utterances_with_problems", "Utterances given out with problems.")
        self.cancelled = counter("cancelled", "Requests that were given up: too slow, or the client had gone.")
        self.whole = seconds("speech", "From a request to its whole audio.")
        self.first_audio = seconds("first_audio", "From a request to the first audio of its stream.")

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Shows what a function returns whenever it is asked for."""
        Gauge(f"valle_{name}", what, registry=self._registry).set_function(value)

    def text(self) -> tuple[bytes, str]:
        """All of it in Prometheus' text format, and the media type of that."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
