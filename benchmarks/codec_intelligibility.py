"""Word error rate of resynthesised speech against the original's, by pocketsphinx's bundled English model.

    python benchmarks/codec_intelligibility.py --speech speech --limit 200 --out codec_intelligibility.json

`--speech` holds corpora of speakers that the codebooks were not fitted on: `LibriSpeech/test-other`, `LJSpeech-1.1`
(both in their original layout) and a `manifest.jsonl` whose corpus `pm` reads LJSpeech's texts.
Read sentences by native speakers suit the recogniser's language model; spelled letters (AN4) and learners' English
(speechocean762), where it fails on two words of three of the originals, would only measure its guessing.
It needs the extra `eval`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import tyro
from tqdm import tqdm

from valle_jax.audio import read_audio
from valle_jax.codec import get_codec
from valle_jax.errors import UserError
from valle_jax.evaluation.bootstrap import bootstrap_ratio
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import WordRecogniser, normalise

ROWS = ("original", "codec", "one codebook")


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A recording and its transcript."""

    corpus: str
    speaker: str
    path: pathlib.Path
    text: str


@dataclasses.dataclass(frozen=True)
class CodecIntelligibility:
    """Compares the WER of original, resynthesised and one-codebook speech; ends with 1 above the target ratio."""

    speech: pathlib.Path
    """Folder of held-out speech, see the module's text."""
    out: pathlib.Path | None = None
    """JSON file for the figures."""
    codec: str = "mel_rvq"
    """Codec to measure."""
    weights: str | None = None
    """Weights of the codec instead of its own."""
    limit: int = 200
    """Utterances, drawn at random over all corpora."""
    target_ratio: float = 1.25
    """Highest accepted WER(codec) / WER(original)."""
    seed: int = 0
    """Of the drawn utterances and the bootstrap."""
    processes: int = 2
    """Recognisers that run side by side."""

    def run(self) -> None:
        rng = np.random.default_rng(self.seed)
        utterances = list(held_out(self.speech))
        if not utterances:
            raise UserError(f"no transcribed utterances under {self.speech}; see benchmarks/codec_intelligibility.py")
        chosen = [utterances[i] for i in sorted(rng.permutation(len(utterances))[: self.limit])]
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the processes share the cores
        with concurrent.futures.ProcessPoolExecutor(self.processes, multiprocessing.get_context("spawn")) as pool:
            arguments = ([self.codec] * len(chosen), [self.weights] * len(chosen), chosen)
            results = list(tqdm(pool.map(measure, *arguments), total=len(chosen), unit="utterance"))
        errors = np.array([result["errors"] for result in results])
        words = np.array([result["words"] for result in results])
        corpora = np.array([utterance.corpus for utterance in chosen])
        report = {"codec": dataclasses.asdict(get_codec(self.codec, self.weights).info), "utterances": len(chosen)}
        print(
            f"{'corpus':<14}{'utterances':>11}{'words':>7}"
            + "".join(f"{row:>14}" for row in ROWS)
            + f"{'ratio':>8}  95 %"
        )
        for corpus in [*sorted(set(corpora)), "all"]:
            mine = (corpora == corpus) | (corpus == "all")
            wer = errors[mine].sum(axis=0) / words[mine].sum()
            ratio = bootstrap_ratio(errors[mine, 1], errors[mine, 0], seed=self.seed)
            report[corpus] = {
                "utterances": ratio.n,
                "speakers": sorted({u.speaker for u, inside in zip(chosen, mine, strict=True) if inside}),
                "words": int(words[mine].sum()),
                "wer": dict(zip(ROWS, wer, strict=True)),
                "ratio": ratio.value,
                "ratio_95": [ratio.low, ratio.high],
            }
            print(
                f"{corpus:<14}{mine.sum():>11}{words[mine].sum():>7}"
                + "".join(f"{rate:>14.3f}" for rate in wer)
                + f"{ratio.value:>8.3f}  {ratio.low:.3f}-{ratio.high:.3f}"
            )
        codes = [np.array(result["codes"]) for result in results]
        report["first_codebook"] = first_codebook_statistics(codes)
        print("first codebook: " + ", ".join(f"{k} {v:.3f}" for k, v in report["first_codebook"].items()))
        if self.out:
            self.out.write_text(json.dumps(report, indent=2, default=float) + "\n")
        if report["all"]["ratio"] > self.target_ratio:
            raise SystemExit(1)


def held_out(folder: pathlib.Path) -> Iterator[Utterance]:
    """The transcribed utterances of the corpora that the module's text names."""
    for transcript in sorted((folder / "LibriSpeech" / "test-other").rglob("*.trans.txt")):
        for line in transcript.read_text().splitlines():
            name, _, text = line.partition(" ")
            yield Utterance("test-other", name.partition("-")[0], transcript.parent / f"{name}.flac", text)
    for metadata in folder.glob("LJSpeech-1.1/metadata.csv"):
        for line in metadata.read_text().splitlines():
            name, *_, text = line.split("|")
            path = metadata.parent / "wavs" / f"{name}.wav"
            if path.exists():
                yield Utterance("LJSpeech", "LJ", path, text)
    for manifest in folder.glob("manifest.jsonl"):
        for record in map(json.loads, manifest.read_text().splitlines()):
            if record["corpus"] == "pm":
                yield Utterance("pm", record["speaker"], folder / record["audio"], record["text"])


_WORKER: dict = {}  # the codec and the recogniser of a worker process, made once


def measure(codec_name: str, weights: str | None, utterance: Utterance) -> dict:
    """Word errors of the original, the resynthesis and the one-codebook audio of an utterance; its words and codes."""
    if not _WORKER:
        _WORKER.update(codec=get_codec(codec_name, weights), recogniser=WordRecogniser())
    codec, recogniser = _WORKER["codec"], _WORKER["recogniser"]
    rate = codec.info.sample_rate
    audio = read_audio(utterance.path, rate)
    codes, _ = codec.encode([audio])
    first = codec.decode(codes[:, :, :1])[0]
    reference = normalise(utterance.text)
    errors = []
    for samples in (audio, codec.decode(codes)[0], first):
        errors.append(edit_distance(reference, recogniser(samples, rate)))
    return {"errors": errors, "words": len(reference), "codes": codes[0, :, 0].tolist()}


def first_codebook_statistics(codes: list[np.ndarray]) -> dict[str, float]:
    """How hard the first codebook is to model: entropies in bits, and the share of frames that repeat the last."""
    _, counts = np.unique(np.concatenate(codes), return_counts=True)
    pairs = np.concatenate([np.stack([c[:-1], c[1:]], axis=1) for c in codes])
    _, pair_counts = np.unique(pairs, axis=0, return_counts=True)
    return {
        "unigram_entropy_bits": entropy_bits(counts),
        "bigram_entropy_bits": entropy_bits(pair_counts) - entropy_bits(counts),
        "repeated_share": float((pairs[:, 0] == pairs[:, 1]).mean()),
    }


def entropy_bits(counts: np.ndarray) -> float:
    """Of the distribution that the counts estimate."""
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


if __name__ == "__main__":
    try:
        tyro.cli(CodecIntelligibility).run()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
