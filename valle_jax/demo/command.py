"""The verb `valle demo`."""

from __future__ import annotations

import dataclasses
import signal

import tyro

from valle_jax.errors import UserError
from valle_jax.inference.request import Options
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.synthesizer import Synthesizer


@dataclasses.dataclass(frozen=True)
class Demo:
    """A web page: type a text, record a voice or choose one, compare takes.

    Nothing but this machine is asked for anything: no analytics, no public link, no fonts from elsewhere.

    Example: valle demo --model MODEL_DIR
    """

    model: str
    """Model directory, as `valle export` writes it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, without a password."""
    port: int = 7860
    """Port to listen on."""
    voices: str | None = None
    """Folder of stored voices; default: $VALLE_VOICES or the user's data folder."""
    language: str = "en-us"
    """Language of the texts, as espeak-ng names it."""
    asr: str = "pocketsphinx"
    """Recogniser for recordings without a transcript: see docs/evaluation.md."""
    most_takes: int = 8
    """Takes of a text that can be asked for."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = Options().sampling
    """What the page's controls are set to."""
    nar_temperature: float = 0.0
    """The same: 0 takes the NAR's most probable codes."""
    nar_guidance: float = 1.0
    """The same: above 1, the NAR keeps closer to the voice, for twice the work."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Serves the page until it is interrupted or terminated."""
        if self.most_takes < 1:
            raise UserError(f"most_takes {self.most_takes} must be at least 1")
        options = Options(self.sampling, nar_temperature=self.nar_temperature, nar_guidance=self.nar_guidance)
        try:
            from valle_jax.demo.page import Page
        except ImportError:
            raise UserError("the page needs gradio and matplotlib: pip install 'valle-jax[demo]'") from None
        tts = Synthesizer.load(self.model, language=self.language, codec_weights=self.codec_weights)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        page = Page(tts, options, voices=self.voices, recogniser=self.asr, most_takes=self.most_takes)
        page.serve(self.host, self.port)
