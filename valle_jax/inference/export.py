"""The verb `valle export`: two training runs to one model directory."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from valle_jax.codec.base import CodecInfo
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir, save_model_dir
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.version import __version__

CARD = """# A VALL-E model

Made by valle-jax {version}. Codec: {codec.name} ({codec.sample_rate} Hz, {codec.frames_per_second:g} frames/s,
{codec.codebooks} codebooks of {codec.codebook_size}). Text: {symbols} phoneme symbols, table {table}.

| decoder | layers | width | heads | parameters | trained steps |
|---|---|---|---|---|---|
| AR | {ar.n_layers} | {ar.d_model} | {ar.n_heads} | {ar_count:,} | {ar_steps:,} |
| NAR | {nar.n_layers} | {nar.d_model} | {nar.n_heads} | {nar_count:,} | {nar_steps:,} |

Zero-shot text to speech imitates the voice of its prompt: use recordings of people who agreed to it, and say that the
result is synthetic.

    valle synthesize --model . --text "…" --prompt voice.wav --prompt-text "…" --out speech.wav
"""


def export_model(
    ar: str | pathlib.Path,
    nar: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    which: Literal["best", "latest"] = "best",
) -> ModelDir:
    """Writes the model directory of two work directories of `valle train`.

    Args:
      ar: work directory of the AR stage.
      nar: work directory of the NAR stage.
      out: model directory to write.
      which: checkpoint to take: "best" by validation loss, or "latest".

    Raises:
      UserError: a run has no checkpoint, or is of the other stage, or the two used different codecs or vocabularies.
    """
    from valle_jax.model import build
    from valle_jax.train.checkpoint import load_params

    runs = {"ar": load_params(ar, which=which), "nar": load_params(nar, which=which)}
    for stage, run in runs.items():
        if run.config.model.stage != stage:
            raise UserError(f"--{stage} {ar if stage == 'ar' else nar} is a run of the {run.config.model.stage} stage")
    vocabulary = Vocabulary.from_json(runs["ar"].vocabulary)
    vocabulary.check_same(Vocabulary.from_json(runs["nar"].vocabulary), str(ar), str(nar))
    codec = CodecInfo.from_json(runs["ar"].codec)
    codec.check_same(CodecInfo.from_json(runs["nar"].codec), str(ar), str(nar))
    model = ModelDir(
        runs["ar"].config.model,
        runs["ar"].params,
        runs["nar"].config.model,
        runs["nar"].params,
        vocabulary,
        codec,
        max_tokens=min(run.config.data.row_length for run in runs.values()),
    )
    card = CARD.format(
        version=__version__,
        codec=codec,
        symbols=vocabulary.size,
        table=vocabulary.version,
        ar=model.config_ar,
        nar=model.config_nar,
        ar_count=build(model.config_ar).n_parameters,
        nar_count=build(model.config_nar).n_parameters,
        ar_steps=runs["ar"].step,
        nar_steps=runs["nar"].step,
    )
    save_model_dir(out, model, card)
    return model


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a model directory from a trained AR and a trained NAR decoder.

    Example: valle export --ar runs/ar --nar runs/nar --out model
    """

    ar: str
    """Work directory of the AR stage."""
    nar: str
    """Work directory of the NAR stage."""
    out: str
    """Model directory to write."""
    latest: bool = False
    """Take the newest checkpoints instead of those with the best validation loss."""

    def run(self) -> None:
        """Exports and says where."""
        export_model(self.ar, self.nar, self.out, which="latest" if self.latest else "best")
        print(f"model directory {self.out}")
