"""The verb `valle synthesize`."""

from __future__ import annotations

import dataclasses
import json

import tyro

from valle_jax.audio import audio_writer, check_writable
from valle_jax.errors import UserError
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.streaming import Pace
from valle_jax.inference.voice import SUFFIX, Voice, find_voice


@dataclasses.dataclass(frozen=True)
class Synthesize:
    """Say a text in the voice of a recording of about 3 seconds.

    Example: valle synthesize --model MODEL_DIR --text "seven two one" --prompt voice.wav
    --prompt-text "three five" --out speech.wav
    """

    model: str
    """Model directory, as `valle export` writes it."""
    text: str
    """What to say."""
    out: str
    """Audio file to write (.wav, .flac or .ogg)."""
    prompt: str | None = None
    """Audio file of the voice, about 3 seconds."""
    prompt_text: str | None = None
    """What the prompt says."""
    voice: str | None = None
    """Stored voice to use instead of a prompt (`valle voice`): its name, or its file."""
    language: str = "en-us"
    """Language of both texts, as espeak-ng names it."""
    seed: int = 0
    """Of the random draws."""
    best_of: int = 1
    """Takes to draw, of which the most probable finished one is kept."""
    nar_temperature: float = 0.0
    """0: the NAR's most probable codes; above, those nearest to the expected vectors: for models trained little."""
    nar_guidance: float = 1.0
    """Above 1 the NAR keeps closer to the voice of the prompt: for models trained little."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = Sampling(temperature=0.8, top_p=0.95)
    """The decoding rules."""
    stream: bool = False
    """Write the audio in chunks, while it is being drawn."""
    pace: Pace = Pace()
    """In what chunks."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Writes the audio and prints what came out as one line of JSON."""
        from valle_jax.inference.synthesizer import Options, Synthesizer

        check_writable(self.out)
        prompt = self._prompt()
        synthesizer = Synthesizer.load(self.model, language=self.language, codec_weights=self.codec_weights)
        options = Options(
            sampling=self.sampling,
            best_of=self.best_of,
            nar_temperature=self.nar_temperature,
            nar_guidance=self.nar_guidance,
        )
        what = {"text": self.text, "prompt": prompt, "prompt_text": self.prompt_text}
        if self.stream:
            chunks = synthesizer.stream(**what, seed=self.seed, options=options, pace=self.pace)
            with audio_writer(self.out, synthesizer.codec.info.sample_rate) as append:
                for chunk in chunks:
                    append(chunk.samples)
            info = chunk.info
        else:
            audio = synthesizer.synthesize(**what, seed=self.seed, options=options)
            audio.save(self.out)
            info = audio.info
        print(json.dumps({"out": self.out, **info}))

    def _prompt(self) -> str | Voice:
        """The recording or the stored voice."""
        if self.voice is not None:
            if self.prompt is not None or self.prompt_text is not None:
                raise UserError("--voice knows what it says: leave out --prompt and --prompt-text")
            return Voice.load(self.voice) if self.voice.endswith(SUFFIX) else find_voice(self.voice)
        if self.prompt is None or self.prompt_text is None:
            raise UserError("give --prompt and --prompt-text, or --voice")
        return self.prompt
