"""A corpus of spoken digits by espeak-ng: many voices, some of them and some sequences kept out of training.

python -m data_prep.synthetic --out DIR --minutes 40

A voice is a variant of espeak-ng's US English with a pitch, an intonation range and a rate of its own; training voices
also have a vocal tract of their own, by resampling. Unseen voices are of variants that no training voice has. A digit
sequence is a test sequence or a training one by its hash, so no test sequence is ever trained on, whatever the seed and
the size.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pathlib
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import tyro

from data_prep.espeak import Espeak
from valle_jax.audio import resample, write_audio
from valle_jax.errors import UserError
from valle_jax.hearing.digits import DIGITS

TEST_SHARE = 4  # one sequence in so many is a test sequence
PROMPT_SECONDS = 3.0
WORDS_PER_DIGIT = 0.9  # of espeak's words per minute, as measured: how many digits make a prompt
TRAINING_DIGITS = range(2, 9)  # short ones teach which digit is where: models learn that from the front on
RATES = range(168, 173)  # words per minute; near to each other, so that a position tells how far a text has been read
INTONATIONS = range(30, 71)
TRACTS = (0.86, 1.16)  # of training voices: what women's and men's differ by
TEST_DIGITS = range(4, 9)
VALIDATION_SHARE = 0.03  # of the training voices' utterances
VALIDATION_UTTERANCES = 8  # of each validation voice


@dataclasses.dataclass(frozen=True)
class Variant:
    """A variant of espeak-ng's and the pitches at which pocketsphinx understands it."""

    name: str
    lowest_pitch: int = 10
    highest_pitch: int = 90


@dataclasses.dataclass(frozen=True)
class Voice:
    """How a speaker speaks; see `Espeak.say`.

    Attributes:
      variant, pitch, pitch_range, rate: espeak-ng's.
      tract: length of the vocal tract, as a multiple of the variant's; pitch and formants are divided by it.
    """

    variant: str
    pitch: int
    pitch_range: int
    rate: int
    tract: float = 1.0

    @property
    def speaker(self) -> str:
        """Its name in the corpus."""
        return f"{self.variant}-p{self.pitch}-i{self.pitch_range}-r{self.rate}-t{self.tract:.2f}"


# Chosen by `python -m data_prep.select_variants`: of all variants these are read best, at least 0.88 of their digits on
# average over five pitches. The narrower ranges leave out a pitch at which a variant falls below that. Near twins (f2
# and f5, klatt4 and klatt5, …) are on both sides, as they are in corpora of people.
TRAINING_VARIANTS = (
    *(Variant(name) for name in ("adam", "announcer", "benjamin", "caleb", "croak", "Diogo", "edward2", "f2", "fast")),
    *(Variant(name) for name in ("grandpa", "klatt", "klatt3", "klatt4", "klatt6", "m1", "m4", "miguel", "Mike")),
    *(Variant(name) for name in ("robosoft", "robosoft3", "victor")),
    *(Variant(name, highest_pitch=70) for name in ("Denis", "f4", "Gene2")),
)
VALIDATION_VARIANTS = (Variant("f3"), Variant("Henrique"), Variant("m5"), Variant("mike2"))
TEST_VARIANTS = (
    *(Variant(name) for name in ("edward", "Hugo", "john", "klatt2", "klatt5", "m6", "michel", "Reed", "robosoft2")),
    Variant("f5", highest_pitch=70),
)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Write a corpus of spoken digits: OUT/train and OUT/test, each a manifest.jsonl with its recordings.

    Example: python -m data_prep.synthetic --out corpus --minutes 40
    """

    out: str
    """Folder to write."""
    minutes: float = 40.0
    """Training audio."""
    voices: int = 240
    """Training voices."""
    test_utterances: int = 120
    """Utterances of unseen voices, each with a prompt of about 3 s and another text."""
    seed: int = 0
    """Of the voices and the sequences."""

    def __post_init__(self):
        if self.minutes <= 0 or self.voices < 1 or self.test_utterances < 1:
            raise UserError("--minutes, --voices and --test-utterances must be positive")

    def run(self) -> None:
        """Writes the corpus."""
        # In a process of its own, which makes it repeatable: espeak-ng carries state from one utterance to the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_write, self).result()


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What is to be said by whom."""

    digits: tuple[int, ...]
    voice: Voice
    split: str

    @property
    def text(self) -> str:
        """The digit words."""
        return " ".join(DIGITS[digit] for digit in self.digits)


def is_test_sequence(digits: tuple[int, ...]) -> bool:
    """Whether a sequence is kept for testing."""
    return zlib.crc32(bytes(digits)) % TEST_SHARE == 0


def draw_voices(
    variants: tuple[Variant, ...],
    count: int,
    random: np.random.Generator,
    tracts: tuple[float, float] = (1.0, 1.0),
) -> list[Voice]:
    """Voices of the variants in turn; the voices of one variant have pitches spread over its range."""
    voices = []
    for i in range(count):
        variant, turn = variants[i % len(variants)], i // len(variants)
        turns = -(-(count - i % len(variants)) // len(variants))  # voices that this variant gets
        share = (turn + random.uniform(0.1, 0.9)) / turns
        pitch = variant.lowest_pitch + share * (variant.highest_pitch - variant.lowest_pitch)
        intonation, rate = (int(random.choice(choices)) for choices in (INTONATIONS, RATES))
        tract = float(np.exp(random.uniform(*np.log(tracts))))
        voices.append(Voice(variant.name, round(pitch), intonation, rate, tract))
    return voices


def draw_digits(random: np.random.Generator, lengths: range, *, test: bool) -> tuple[int, ...]:
    """A sequence of one of the lengths, of the test sequences or of the others."""
    while True:
        digits = tuple(random.integers(0, 10, random.integers(lengths.start, lengths.stop)).tolist())
        if is_test_sequence(digits) == test:
            return digits


def plan_test(options: Corpus, random: np.random.Generator) -> Iterator[tuple[Utterance, Utterance]]:
    """Pairs of a test utterance and its prompt, the voices in turn; no test sequence comes twice."""
    voices = draw_voices(TEST_VARIANTS, len(TEST_VARIANTS), random)
    said: set[tuple[int, ...]] = set()
    for i in range(options.test_utterances):
        voice = voices[i % len(voices)]
        while (digits := draw_digits(random, TEST_DIGITS, test=True)) in said:
            pass
        said.add(digits)
        count = round(PROMPT_SECONDS * voice.rate / 60 / WORDS_PER_DIGIT)
        prompt = draw_digits(random, range(count, count + 1), test=False)
        yield Utterance(digits, voice, "test"), Utterance(prompt, voice, "test")


def plan_training(options: Corpus, random: np.random.Generator) -> Iterator[Utterance]:
    """Utterances of the validation voices, then without end those of the training voices in turn."""
    for voice in draw_voices(VALIDATION_VARIANTS, len(VALIDATION_VARIANTS), random) * VALIDATION_UTTERANCES:
        yield Utterance(draw_digits(random, TRAINING_DIGITS, test=False), voice, "valid_speaker")
    voices = draw_voices(TRAINING_VARIANTS, options.voices, random, TRACTS)
    while True:
        for voice in voices:
            split = "valid_utterance" if random.random() < VALIDATION_SHARE else "train"
            yield Utterance(draw_digits(random, TRAINING_DIGITS, test=False), voice, split)


class _Writer:
    """Says utterances into a folder and lists them in its manifest."""

    def __init__(self, folder: pathlib.Path, espeak: Espeak):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._espeak = folder, espeak
        self._entries: list[dict] = []

    def write(self, name: str, utterance: Utterance, **more: str) -> float:
        """Returns the duration in seconds."""
        voice, sample_rate = utterance.voice, self._espeak.sample_rate
        said = self._espeak.say(
            utterance.text,
            f"en-us+{voice.variant}",
            pitch=voice.pitch,
            pitch_range=voice.pitch_range,
            rate=round(voice.rate * voice.tract),  # a longer tract slows it down again
        )
        samples = resample(said, round(sample_rate / voice.tract), sample_rate)
        write_audio(self._folder / name, samples, sample_rate)
        entry = {"audio": name, "text": utterance.text, "speaker": voice.speaker, "split": utterance.split}
        self._entries.append({**entry, **more})
        return len(samples) / sample_rate

    def close(self) -> None:
        """Writes the manifest, with the utterances of a speaker together: training joins neighbours."""
        self._entries.sort(key=lambda entry: (entry["speaker"], entry["audio"]))
        with open(self._folder / "manifest.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in self._entries)


def _write(options: Corpus) -> None:
    """Writes the corpus in this process."""
    espeak = Espeak()
    test, training = (_Writer(pathlib.Path(options.out) / name, espeak) for name in ("test", "train"))
    test_random, training_random = (np.random.default_rng([options.seed, part]) for part in (0, 1))
    for i, (utterance, prompt) in enumerate(plan_test(options, test_random)):
        prompt_name = f"{i:03d}-prompt.wav"
        test.write(prompt_name, prompt)
        test.write(f"{i:03d}.wav", utterance, prompt=prompt_name, prompt_text=prompt.text)
    test.close()
    seconds = 0.0
    for i, utterance in enumerate(plan_training(options, training_random)):
        spoken = training.write(f"{i:05d}.wav", utterance)
        seconds += spoken if utterance.split == "train" else 0
        if seconds >= options.minutes * 60:
            break
    training.close()


if __name__ == "__main__":
    try:
        tyro.cli(Corpus).run()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
