"""The verb `valle serve`."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import signal

import tyro

from valle_jax.errors import UserError, WorkError
from valle_jax.inference.request import Options
from valle_jax.inference.streaming import Pace

API_KEY = "VALLE_API_KEY"


@dataclasses.dataclass(frozen=True)
class Serve:
    """Say texts for whoever asks by HTTP, as OpenAI's speech endpoint does, in the voices that `valle voice` keeps.

    Requests are drawn side by side. An API key is taken from --api-key-file or the environment's VALLE_API_KEY. SIGTERM
    ends the server when what it has begun is done.

    Example: valle serve --model MODEL_DIR --port 8000
    """

    model: str
    """Model directory, as `valle export` writes it."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0: all of this machine's."""
    port: int = 8000
    """Port to listen at; 0: any that is free."""
    voices: str | None = None
    """Folder of the voices; default: the user's."""
    language: str = "en-us"
    """Of all texts, as espeak-ng names it."""
    slots: int = 8
    """Utterances that are drawn side by side."""
    steps: int = 16
    """Most codes that are drawn between two looks at the queue."""
    max_tokens: int = 2048
    """Of prompt, text and speech of an utterance; memory and time of every step grow with it."""
    max_waiting: int = 64
    """Utterances; while so many wait for a slot, requests are refused with 429."""
    max_characters: int = 4096
    """Of a text."""
    max_body_bytes: int = 65_536
    """Of a request."""
    timeout_seconds: float = 120.0
    """That an answer may take, of a stream each chunk; afterwards the request is given up with 503."""
    api_key_file: str | None = None
    """File with a key that clients must send (Authorization: Bearer KEY)."""
    speaking: tyro.conf.OmitArgPrefixes[Options] = Options(batch_size=4)
    """How everything is said."""
    pace: Pace = Pace()
    """In what chunks streams are given out."""
    warm_up: bool = True
    """Compile what requests will need before /healthz says ok."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Serves until SIGTERM or an interrupt."""
        try:
            import uvicorn

            from valle_jax.serving.api import Limits, create_app
            from valle_jax.serving.metrics import Metrics
        except ImportError as error:
            raise UserError(
                f"the server is not installed (no module {error.name!r}): pip install 'valle-jax[serve]'"
            ) from None
        from valle_jax.inference.synthesizer import Synthesizer
        from valle_jax.serving.service import Service, Settings

        limits = Limits(self.max_body_bytes, self.max_characters, self.timeout_seconds)
        settings = Settings(
            self.speaking,
            slots=self.slots,
            steps=self.steps,
            max_waiting=self.max_waiting,
            pace=self.pace,
            voices=self.voices,
            warm_up=self.warm_up,
        )
        key = self._api_key()
        tts = Synthesizer.load(self.model, language=self.language, codec_weights=self.codec_weights)
        tts.model = dataclasses.replace(tts.model, max_tokens=min(self.max_tokens, tts.model.max_tokens))
        metrics = Metrics()

        def fail() -> None:
            server.should_exit = True

        service = Service(tts, settings, metrics, fail)
        config = uvicorn.Config(
            create_app(service, metrics, limits, key),
            host=self.host,
            port=self.port,
            log_config=None,
            log_level="info",
            timeout_graceful_shutdown=round(self.timeout_seconds) + 1,
        )
        server = uvicorn.Server(config)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("valle.serve").setLevel("INFO")
        # uvicorn raises the signal that has ended it once more, for whoever handled it before: nothing is left to do.
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        server.run()
        if service.broken:
            raise WorkError(f"the server has failed: {service.broken!r}")

    def _api_key(self) -> str | None:
        if self.api_key_file is None:
            return os.environ.get(API_KEY) or None
        try:
            key = pathlib.Path(self.api_key_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {self.api_key_file}: {getattr(error, 'strerror', None) or error}") from None
        if not key:
            raise UserError(f"{self.api_key_file} is empty: it must hold an API key")
        return key
