"""The verb `valle voice`: add and list."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import numpy as np
import tyro

from valle_jax.audio import read_audio
from valle_jax.codec import get_codec
from valle_jax.errors import UserError
from valle_jax.inference.voice import Voice, list_voices, voice_path

SECONDS = (0.5, 20.0)  # shortest and longest prompt
QUIET_DECIBELS = -40.0  # of full scale: below, noise and the codec's errors are as loud as the voice
SILENT_DECIBELS = -60.0
CLIPPED = 0.999  # of full scale
CLIPPED_SHARE = 1e-3  # of the samples: above, the distortion is heard, and imitated


def complaints(samples: np.ndarray) -> list[str]:
    """What is wrong with the level of a prompt, float32 [samples], though it can be used."""
    loudness = 20 * np.log10(np.sqrt(np.square(samples).mean()) + 1e-9)
    clipped = (np.abs(samples) >= CLIPPED).mean()
    found = []
    if loudness < QUIET_DECIBELS:
        found.append(f"it is quiet ({loudness:.0f} dB of full scale); record it louder")
    if clipped > CLIPPED_SHARE:
        found.append(f"{clipped:.1%} of its samples are clipped; record it at a lower level")
    return found


@dataclasses.dataclass(frozen=True)
class Add:
    """Encode a recording of about 3 seconds and keep it under a name.

    Example: valle voice add anna anna.wav --text "What Anna says."
    """

    name: tyro.conf.Positional[str]
    """Of the voice."""
    audio: tyro.conf.Positional[str]
    """Recording of the voice."""
    text: str | None = None
    """What it says; default: what the recogniser hears."""
    asr: str = "pocketsphinx"
    """Recogniser for recordings without --text: pocketsphinx (offline), whisper, …: see docs/evaluation.md."""
    codec: str = "mel_rvq"
    """Of the models that are to use the voice."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""
    language: str = "en-us"
    """Of the text, as espeak-ng names it."""
    voices: str | None = None
    """Folder of voices; default: $VALLE_VOICES or the user's data folder."""
    force: bool = False
    """Replace a voice of that name."""

    def run(self) -> None:
        """Writes the voice's file."""
        from valle_jax.text.phonemizer import Phonemizer

        path = voice_path(self.name, self.voices)
        if path.exists() and not self.force:
            raise UserError(f"there is a voice {self.name!r} in {path.parent}; --force replaces it")
        codec = get_codec(self.codec, self.codec_weights)
        samples = read_audio(self.audio, codec.info.sample_rate)
        seconds = len(samples) / codec.info.sample_rate
        if not SECONDS[0] <= seconds <= SECONDS[1]:
            raise UserError(f"{self.audio} has {seconds:.2f} s; a voice needs {SECONDS[0]} to {SECONDS[1]} s, best 3 s")
        if 20 * np.log10(np.abs(samples).max() + 1e-9) < SILENT_DECIBELS:
            raise UserError(f"{self.audio} is silent; record a voice prompt of about 3 s")
        for complaint in complaints(samples):
            print(f"valle voice: {self.audio}: {complaint}", file=sys.stderr)
        text = self._heard(samples, codec.info.sample_rate) if self.text is None else self.text
        (phonemes,) = Phonemizer(self.language)([text])
        if not phonemes.strip():
            raise UserError(f"the text {text!r} has no phonemes")
        codes, lengths = codec.encode([samples])
        voice = Voice(codes[0, : lengths[0]], text, phonemes, self.language, codec.info)
        voice.save(path)
        print(f"{path}: {voice.seconds:.1f} s, {voice.text!r}")

    def _heard(self, samples: np.ndarray, sample_rate: int) -> str:
        from valle_jax.hearing.recognition import get_recogniser

        (text,) = get_recogniser(self.asr).transcribe([samples], sample_rate)
        if not text:
            raise UserError(f"{self.asr} hears nothing in {self.audio}; say with --text what it says")
        print(f"valle voice: {self.asr} heard {text!r}; give --text if that is wrong", file=sys.stderr)
        return text


@dataclasses.dataclass(frozen=True)
class List:
    """List the voices.

    Example: valle voice list
    """

    voices: str | None = None
    """Folder of voices; default: $VALLE_VOICES or the user's data folder."""

    def run(self) -> None:
        """Prints a line a voice."""
        for name, path in list_voices(self.voices).items():
            voice = Voice.load(path)
            print(f"{name}  {voice.seconds:.1f} s  {voice.language}  {voice.codec.name}  {voice.text!r}")


@tyro.conf.configure(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
@dataclasses.dataclass(frozen=True)
class VoiceCommand:
    """Keep voices, encoded once, in small files that can be shared.

    Example: valle voice add anna anna.wav --text "What Anna says."
    """

    action: Annotated[Add, tyro.conf.subcommand("add")] | Annotated[List, tyro.conf.subcommand("list")]
    """What to do."""

    def run(self) -> None:
        """Runs the action."""
        self.action.run()
