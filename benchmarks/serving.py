"""A load test of the server on loopback: rates, latencies, time to first audio, refusals; and the same work by `Batch`.

    python benchmarks/serving.py                    # random decoders of the preset `digits`
    python benchmarks/serving.py --preset small --clients 8 --slots 16

Server and clients run in one process; each client asks again as soon as it has its answer. All rows say the same texts
of three to five digits with the same seeds, after everything is compiled. Decoders are random: speech is as long as
the rate of the prompt says. In the last row few requests may wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import platform
import queue
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import jax
import numpy as np
import tyro
import uvicorn

from valle_jax.codec import get_codec
from valle_jax.configs import get_options, get_preset
from valle_jax.inference.batch import Batch
from valle_jax.inference.batch import Settings as BatchSettings
from valle_jax.inference.model_dir import ModelDir
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import voice_path
from valle_jax.model import build
from valle_jax.serving.api import Limits, create_app
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.service import Service, Settings
from valle_jax.text.vocabulary import Vocabulary

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPT_SECONDS, PROMPT_TEXT = 3, "seven two seven zero five four nine"
_COLUMNS = (
    "clients", "requests/s", "audio s/s", "whole, p50", "whole, p95", "first audio, p50", "first audio, p95", "429",
    "slots full",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a client got: seconds to the first audio and to the last, seconds of speech; 0 of speech: it was refused."""

    first: float
    whole: float
    speech: float


@dataclasses.dataclass(frozen=True)
class Serving:
    """See the top of this file."""

    preset: str = "digits"
    """Of the decoders; its sampling options are used."""
    max_tokens: int = 512
    """Of prompt, text and speech."""
    clients: tuple[int, ...] = (1, 4, 16)
    """Side by side; a row each, for wholes and for streams."""
    requests: int = 32
    """In a row."""
    slots: int = 8
    """Of the engine."""
    max_waiting: int = 2
    """In the last row, which has the most clients."""
    seed: int = 0
    """Of the texts."""

    def run(self) -> None:
        """Prints a table."""
        tts = Synthesizer(self._model())
        options = get_options(self.preset)
        options = dataclasses.replace(options, min_rate_ratio=1.0, max_rate_ratio=1.0, tries=1, batch_size=4)
        draws = random.Random(self.seed)
        texts = [" ".join(draws.choices(WORDS, k=draws.randint(3, 5))) for _ in range(self.requests)]
        with tempfile.TemporaryDirectory() as folder:
            prompt = np.sin(np.arange(PROMPT_SECONDS * tts.codec.info.sample_rate) * 0.05).astype(np.float32)
            tts.voice(prompt, PROMPT_TEXT).save(voice_path("voice", folder))
            settings = Settings(options, slots=self.slots, voices=folder, max_waiting=self.requests)
            _print(_COLUMNS)
            _print(["---"] * len(_COLUMNS))
            with _serving(tts, settings) as (client, service):
                _print(self._batch(tts, settings, texts, folder))
                for stream in (None, "audio"):
                    for clients in self.clients:
                        _print(_row(client, service, texts, clients, stream))
            crowded = dataclasses.replace(settings, max_waiting=self.max_waiting, warm_up=False)
            with _serving(tts, crowded) as (client, service):
                _print(_row(client, service, texts, max(self.clients), None))
        print(f"\n{self.requests} requests a row; {jax.devices()[0].device_kind}, {platform.machine()}")

    def _model(self) -> ModelDir:
        """Random decoders of the preset."""
        codec, vocabulary = get_codec("mel_rvq").info, Vocabulary.default()
        sizes = {"n_symbols": vocabulary.size, "codebooks": codec.codebooks, "codebook_size": codec.codebook_size}
        parts: list[Any] = []
        for stage in ("ar", "nar"):
            config = dataclasses.replace(get_preset(self.preset, stage).model, **sizes)
            parts += [config, jax.jit(build(config).init)(jax.random.key(0))]
        return ModelDir(*parts, vocabulary, codec, self.max_tokens)

    def _batch(self, tts: Synthesizer, settings: Settings, texts: list[str], folder: str) -> list[str]:
        """The row of `Batch`, of its second run."""
        jobs = pathlib.Path(folder) / "jobs.jsonl"
        lines = [{"id": str(i), "text": text, "voice": "voice", "seed": i} for i, text in enumerate(texts)]
        jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
        batch = BatchSettings(settings.options, settings.slots, tts.model.max_tokens, voices=folder)
        for name in ("compiles", "counts"):
            runner = Batch(tts, jobs, pathlib.Path(folder) / name, batch)
            start = time.perf_counter()
            totals = runner.run()
            seconds = time.perf_counter() - start
        figures = [f"{totals.done / seconds:.2f}", f"{totals.audio_seconds / seconds:.2f}"]
        return ["`valle batch`", *figures, "", "", "", "", "", f"{runner.occupancy:.2f}"]


def _print(row: Sequence[str]) -> None:
    print(f"| {' | '.join(row)} |", flush=True)


@contextlib.contextmanager
def _serving(tts: Synthesizer, settings: Settings) -> Iterator[tuple[httpx.Client, Service]]:
    """A client of a server that is ready."""
    metrics = Metrics()
    service = Service(tts, settings, metrics)
    app = create_app(service, metrics, Limits(seconds=600))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not service.ready:
        time.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits) as client:
        yield client, service
    server.should_exit = True
    thread.join()


def _row(client: httpx.Client, service: Service, texts: list[str], clients: int, stream: str | None) -> list[str]:
    """All texts, said for so many clients."""
    waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    for item in enumerate(texts):
        waiting.put(item)
    answers: list[Answer] = []

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                answers.append(_ask(client, *waiting.get_nowait(), stream))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    before = dataclasses.replace(service.occupancy)
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    served = [answer for answer in answers if answer.speech]
    drawn, steps = service.occupancy.drawn - before.drawn, service.occupancy.steps - before.steps
    first = [f"{np.percentile([a.first for a in served], p):.2f} s" for p in (50, 95)] if stream else ["", ""]
    whole = [f"{np.percentile([a.whole for a in served], p):.2f} s" for p in (50, 95)]
    rates = [f"{len(served) / seconds:.2f}", f"{sum(a.speech for a in served) / seconds:.2f}"]
    refused = str(len(answers) - len(served))
    name = f"{clients}, streams" if stream else str(clients)
    return [name, *rates, *whole, *first, refused, f"{drawn / (steps * before.slots):.2f}"]


def _ask(client: httpx.Client, seed: int, text: str, stream: str | None) -> Answer:
    """One request for pcm."""
    fields = {"input": text, "voice": "voice", "response_format": "pcm", "seed": seed, "stream_format": stream}
    start, first, size = time.perf_counter(), 0.0, 0
    with client.stream("POST", "/v1/audio/speech", json=fields) as response:
        if response.status_code == 429:
            return Answer(0.0, 0.0, 0.0)
        response.raise_for_status()
        for part in response.iter_raw():
            first = first or time.perf_counter() - start
            size += len(part)
    return Answer(first, time.perf_counter() - start, size / 2 / 24_000)


if __name__ == "__main__":
    tyro.cli(Serving, description=__doc__).run()
