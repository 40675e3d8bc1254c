"""The verb `valle synthesize`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import tqdm
import tyro

from valle_jax.audio import audio_writer, check_writable
from valle_jax.errors import UserError
from valle_jax.inference.long_text import Reading, fits, stream_long, synthesize_long
from valle_jax.inference.request import Options
from valle_jax.inference.streaming import Pace
from valle_jax.inference.synthesizer import Synthesizer
from valle_jax.inference.voice import SUFFIX, Voice, find_voice


@dataclasses.dataclass(frozen=True)
class Synthesize:
    """Say a text in the voice of a recording of about 3 seconds.

    Example: valle synthesize --model MODEL_DIR --text "seven two one" --prompt voice.wav
    --prompt-text "three five" --out speech.wav

    Example: valle synthesize --model MODEL_DIR --text "The whole sentence that voice.wav begins." --prompt voice.wav
    --continual --out rest.wav
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
    continual: bool = False
    """The prompt is the beginning of the text (VALL-E-continual): what is written goes on from it."""
    voice: str | None = None
    """Stored voice to use instead of a prompt (`valle voice`): its name, or its file."""
    language: str = "en-us"
    """Language of both texts, as espeak-ng names it."""
    seed: int = 0
    """Of the random draws."""
    speaking: tyro.conf.OmitArgPrefixes[Options] = Options()
    """How it is said."""
    stream: bool = False
    """Write the audio in chunks, while it is being drawn."""
    pace: Pace = Pace()
    """In what chunks."""
    long: bool = False
    """Say the text in pieces of whole sentences; a text that is too long for the model is, without being asked."""
    reading: Reading = Reading()
    """How it is cut and joined."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Writes the audio and prints what came out as one line of JSON."""
        check_writable(self.out)
        prompt = self._prompt()
        tts = Synthesizer.load(self.model, language=self.language, codec_weights=self.codec_weights)
        if isinstance(prompt, str) and not self.continual:
            prompt = tts.voice(prompt, self.prompt_text or "")
        voice = prompt if isinstance(prompt, Voice) and (self.long or not fits(tts, self.text, prompt)) else None
        if self.stream:
            info = self._stream(tts, prompt, voice)
        elif voice is not None:
            info = self._say_long(tts, voice)
        else:
            audio = tts.synthesize(self.text, prompt=prompt, seed=self.seed, options=self.speaking)
            audio.save(self.out)
            info = audio.info
        if info["problems"]:
            print(f"valle synthesize: warning: {self.out} has {', '.join(info['problems'])}", file=sys.stderr)
        print(json.dumps({"out": self.out, **info}))

    def _say_long(self, tts: Synthesizer, voice: Voice) -> dict[str, Any]:
        """Says the text piece by piece and returns the info."""
        with tqdm.tqdm(desc="synthesize", unit=" pieces") as bar:

            def show(done: int, pieces: int) -> None:
                bar.total = pieces
                bar.update(done - bar.n)

            audio = synthesize_long(
                tts, self.text, voice=voice, seed=self.seed, options=self.speaking, reading=self.reading, progress=show
            )
        audio.save(self.out)
        return audio.info

    def _stream(self, tts: Synthesizer, prompt: str | Voice, long: Voice | None) -> dict[str, Any]:
        """Writes the text while it is being drawn, in pieces where `long` is their voice, and returns the info."""
        options, pace, seed = self.speaking, self.pace, self.seed
        if long is None:
            chunks = tts.stream(self.text, prompt=prompt, seed=seed, options=options, pace=pace)
        else:
            reading = self.reading
            chunks = stream_long(tts, self.text, voice=long, seed=seed, options=options, reading=reading, pace=pace)
        info: dict[str, Any] = {}
        with audio_writer(self.out, tts.codec.info.sample_rate) as append:
            for chunk in chunks:
                append(chunk.samples)
                info = chunk.info or info
        return info

    def _prompt(self) -> str | Voice:
        """The recording or the stored voice."""
        if self.voice is not None:
            if self.prompt is not None or self.prompt_text is not None or self.continual:
                raise UserError("--voice knows what it says: leave out --prompt, --prompt-text and --continual")
            return Voice.load(self.voice) if self.voice.endswith(SUFFIX) else find_voice(self.voice)
        if self.continual and (self.prompt_text is not None or self.long):
            raise UserError(
                "--continual goes on from words that --text begins with: leave out --prompt-text and --long"
            )
        if self.prompt is None or (self.prompt_text is None and not self.continual):
            raise UserError("give --prompt and --prompt-text (or --continual), or --voice")
        return self.prompt
