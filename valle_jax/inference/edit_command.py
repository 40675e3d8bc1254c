"""The verb `valle edit`."""

from __future__ import annotations

import dataclasses
import json
import sys

import tyro

from valle_jax.audio import check_writable
from valle_jax.inference.request import Options


@dataclasses.dataclass(frozen=True)
class Edit:
    """Replace, insert or delete words in an English recording, in its own voice.

    Forced alignment (pocketsphinx, the extra `eval`) finds the words that differ between the transcript and the new
    text. What is kept stays as it was recorded.

    Example: valle edit MODEL_DIR --audio in.wav --transcript "We met on Monday at noon."
    --new-text "We met on Friday evening at noon." --out out.wav
    """

    model: tyro.conf.Positional[str]
    """Model directory, as `valle export` writes it."""
    audio: str
    """The recording."""
    transcript: str
    """What it says, word by word."""
    new_text: str
    """What it is to say."""
    out: str
    """Audio file to write (.wav, .flac or .ogg)."""
    seed: int = 0
    """Of the random draws."""
    speaking: tyro.conf.OmitArgPrefixes[Options] = Options(best_of=4)
    """How each change is said."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Writes the audio and prints what was changed as one line of JSON."""
        from valle_jax.inference.editing import LANGUAGE, edit
        from valle_jax.inference.synthesizer import Synthesizer

        check_writable(self.out)
        tts = Synthesizer.load(self.model, language=LANGUAGE, codec_weights=self.codec_weights)
        audio = edit(tts, self.audio, self.transcript, self.new_text, seed=self.seed, options=self.speaking)
        audio.save(self.out)
        if audio.info["problems"]:
            print(f"valle edit: warning: {self.out} has {', '.join(audio.info['problems'])}", file=sys.stderr)
        print(json.dumps({"out": self.out, **audio.info}))
