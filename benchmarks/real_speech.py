"""Zero-shot synthesis of held-out texts, read by pocketsphinx: what a model that was trained on a corpus can say.

    python benchmarks/real_speech.py --model MODEL_DIR --corpus libri.jsonl --split valid_speaker

`--corpus` is the JSON lines file, with splits, that `valle prepare` made the dataset from. Each held-out text is said
in the voice of the shortest other recording of its speaker of at least 3 s, which with its transcript is the prompt.
It needs the extra `eval`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import tyro
from tqdm import tqdm

import valle_jax
from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.evaluation.bootstrap import bootstrap_ratio
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import WordRecogniser, normalise
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.synthesizer import Options, Request

MIN_PROMPT_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A text to say, its recording, and the prompt."""

    text: str
    samples: np.ndarray
    prompt: np.ndarray
    prompt_text: str


@dataclasses.dataclass(frozen=True)
class RealSpeech:
    """Says held-out texts and compares the word error rate with those of the recordings and of the codec."""

    model: str
    """Model directory."""
    corpus: pathlib.Path
    """JSON lines with audio, text, speaker, split."""
    split: str = "valid_speaker"
    """Which texts."""
    limit: int = 40
    """Texts, those of the shortest recordings."""
    guidance: float = 2.0
    """By the text, in the AR decoder."""
    nar_temperature: float = 0.65
    """See `valle_jax.inference.generate.Filling`."""
    nar_guidance: float = 2.0
    """By the prompt, in the NAR decoder."""
    seed: int = 0
    """Of the sampling."""
    out: pathlib.Path | None = None
    """Folder for the audio; made."""

    def run(self) -> None:
        """Prints one line of JSON."""
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
        recogniser = WordRecogniser()
        tts = valle_jax.load(self.model)
        rate = tts.codec.info.sample_rate
        cases = self.cases(rate)
        options = Options(
            sampling=Sampling(temperature=0.8, top_p=0.95, guidance=self.guidance),
            nar_temperature=self.nar_temperature,
            nar_guidance=self.nar_guidance,
            tries=1,  # every take counts
        )
        requests = [Request(case.text, case.prompt, case.prompt_text) for case in cases]
        audios = tts.synthesize_batch(requests, seed=self.seed, options=options)
        errors: dict[str, list[int]] = {"recording": [], "codec": [], "synthesis": []}
        for i, (case, audio) in enumerate(zip(tqdm(cases, unit="text"), audios, strict=True)):
            codes, lengths = tts.codec.encode([case.samples])
            heard = {
                "recording": case.samples,
                "codec": tts.codec.decode(codes, lengths)[0],
                "synthesis": audio.samples,
            }
            for name, samples in heard.items():
                errors[name].append(edit_distance(normalise(case.text), recogniser(samples, rate)))
            if self.out:
                audio.save(self.out / f"{i:03d}.wav")
        counts = np.array([len(normalise(case.text)) for case in cases])
        seconds = np.array([len(case.samples) / rate for case in cases])
        ratio = np.array([audio.info["seconds"] for audio in audios]) / seconds
        rates = {name: bootstrap_ratio(np.array(values), counts, seed=0) for name, values in errors.items()}
        result = {
            "split": self.split,
            "texts": len(cases),
            "words": int(counts.sum()),
            "seconds_median": round(float(np.median(seconds)), 2),
            "wer": {name: [round(r.value, 3), round(r.low, 3), round(r.high, 3)] for name, r in rates.items()},
            "ended": round(float(np.mean([audio.info["finished"] for audio in audios])), 3),
            "duration_ratio_median": round(float(np.median(ratio)), 3),
        }
        print(json.dumps(result))

    def cases(self, sample_rate: int) -> list[Case]:
        """The shortest texts of the split that have a prompt; UserError where there is none."""
        records = [json.loads(line) for line in self.corpus.read_text().splitlines()]
        audio = {r["id"]: read_audio(r["audio"], sample_rate) for r in tqdm(records, desc="reading", unit="recording")}
        by_length = sorted(records, key=lambda r: len(audio[r["id"]]))
        cases = []
        for record in by_length:
            prompts = [
                other
                for other in by_length
                if other["speaker"] == record["speaker"]
                and other["id"] != record["id"]
                and len(audio[other["id"]]) >= MIN_PROMPT_SECONDS * sample_rate
            ]
            if record["split"] == self.split and prompts:
                cases.append(Case(record["text"], audio[record["id"]], audio[prompts[0]["id"]], prompts[0]["text"]))
        if not cases:
            raise UserError(f"{self.corpus} has no text of split {self.split} whose speaker has another recording")
        return cases[: self.limit]


if __name__ == "__main__":
    tyro.cli(RealSpeech).run()
