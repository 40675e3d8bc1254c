"""The verb `valle evaluate`."""

from __future__ import annotations

import dataclasses
import pathlib

import tyro

from valle_jax.errors import UserError
from valle_jax.inference.sampling import Sampling


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` as (i, n); UserError where it is nothing like that."""
    part, slash, whole = text.partition("/")
    if not (slash and part.isdecimal() and whole.isdecimal()):
        raise UserError(f"--shard {text!r} is not of the form i/n, such as 0/4")
    return int(part), int(whole)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a model by a paper's protocol: OUT/table.md, results.json, index.html to listen, plots.

    What was said and measured is kept in OUT/cache: the same command again computes only what is missing. On several
    hosts start it with --shard 0/4 … 3/4 on one shared folder, then once without.

    Protocols: p1-librispeech, p1-librispeech-continual, p1-vctk, p2-librispeech, short.

    Example: valle evaluate MODEL_DIR --protocol p1-librispeech --data LibriSpeech --out evaluation
    """

    model: tyro.conf.Positional[str]
    """Model directory."""
    protocol: str
    """Rule that trials are made by."""
    data: str
    """Corpus with transcripts and speakers (LibriSpeech, LJSpeech, JSONL), or a dataset directory with --audio."""
    out: str
    """Folder to write."""
    systems: tuple[str, ...] = ()
    """Rows: ground-truth codec valle nar ar-no-prompt best-of-5 other-speaker other-text; default: the protocol's."""
    measures: tuple[str, ...] = ()
    """words_RECOGNISER (pocketsphinx, hubert-large, whisper, …), similarity_VOICE (resemblyzer, wavlm-tdnn, …),
    spectral_distortion, duration, bad_takes; default: these with what runs offline. Also phonemes_pocketsphinx,
    alignment_pocketsphinx."""
    seeds: int = 3
    """Runs whose mean is taken, of rows that are sampled."""
    first_seed: int = 0
    """Of the first run; the others count on."""
    limit: int | None = None
    """Utterances to test on, the speakers in turn; default: all."""
    audio: str | None = None
    """Corpus that the dataset directory was prepared from."""
    dataset: str | None = None
    """Dataset directory for teacher-forced losses and accuracies by codebook; default: --data where it is one."""
    trials: str | None = None
    """Trial list (trials.jsonl) to use instead of making one."""
    whole_prompts: bool = False
    """Prompts are whole recordings of about the length, not cut at words (which needs pocketsphinx and English)."""
    cache: str | None = None
    """Folder of audio and values, which evaluations may share; default: OUT/cache."""
    shard: str | None = None
    """i/n: do only every n-th trial from the i-th, without a report."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = Sampling(temperature=0.8, top_p=0.95)
    """The decoding rules."""
    nar_temperature: float = 0.0
    """See `valle synthesize --help`."""
    nar_guidance: float = 1.0
    """See `valle synthesize --help`."""
    batch_size: int = 16
    """Utterances side by side."""
    language: str = "en-us"
    """Of the texts, as espeak-ng names it."""
    codec_weights: str | None = None
    """File of the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Evaluates and prints the table."""
        from valle_jax.evaluation.evaluate import evaluate
        from valle_jax.inference.synthesizer import Options

        shard = parse_shard(self.shard) if self.shard else None
        evaluate(
            self.model,
            self.protocol,
            self.data,
            self.out,
            systems=self.systems or None,
            measures=self.measures or None,
            seeds=self.seeds,
            first_seed=self.first_seed,
            limit=self.limit,
            options=Options(
                sampling=self.sampling,
                nar_temperature=self.nar_temperature,
                nar_guidance=self.nar_guidance,
                batch_size=self.batch_size,
            ),
            audio=self.audio,
            dataset=self.dataset,
            trials=self.trials,
            whole_prompts=self.whole_prompts,
            cache=self.cache,
            shard=shard,
            language=self.language,
            codec_weights=self.codec_weights,
        )
        if shard is None:
            print((pathlib.Path(self.out) / "table.md").read_text(encoding="utf-8"), end="")
