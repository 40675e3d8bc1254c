"""The verb `valle export`: two training runs to one model directory."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Literal

from valle_jax.codec.base import CodecInfo
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir, load_model_dir, save_model_dir, save_params
from valle_jax.interop import torch_state
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.version import __version__

CARD = """# A VALL-E model

Made by valle-jax {version}. Codec: {codec.name} ({codec.sample_rate} Hz, {codec.frames_per_second:g} frames/s,
{codec.codebooks} codebooks of {codec.codebook_size}). Text: {symbols} phoneme symbols, table {table}.

| decoder | layers | width | heads | frames a token | parameters | trained steps |
|---|---|---|---|---|---|---|
| AR | {ar.n_layers} | {ar.d_model} | {ar.n_heads} | {ar.codes_per_step} | {ar_count:,} | {ar_steps:,} |
| NAR | {nar.n_layers} | {nar.d_model} | {nar.n_heads} | {nar.codes_per_step} | {nar_count:,} | {nar_steps:,} |

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
    """Write a model directory from a trained AR and a trained NAR decoder, or what other programs read.

    Example: valle export --ar runs/ar --nar runs/nar --out model

    Example: valle export --model model --format torch --out valle.pt

    Example: valle export --model model --format stablehlo --out programs --rows 8
    """

    out: str
    """Model directory, folder of programs, or file of tensors (.pt, which needs torch, or .safetensors) to write."""
    ar: str | None = None
    """Work directory of the AR stage."""
    nar: str | None = None
    """Work directory of the NAR stage."""
    model: str | None = None
    """Model directory to convert, instead of work directories."""
    latest: bool = False
    """Take the newest checkpoints instead of those with the best validation loss."""
    format: Literal["model", "torch", "stablehlo"] = "model"
    """model: what valle reads; torch: a state dict of lifeiteng/vall-e, where the switches allow it; stablehlo:
    programs of jax.export."""
    rows: int = 1
    """stablehlo: utterances side by side."""
    prefix_tokens: int = 512
    """stablehlo: phonemes and frames of the prompt."""
    max_frames: int = 1024
    """stablehlo: frames that can be generated."""
    codec_weights: str | None = None
    """stablehlo, encodec_24khz: weights of the codec, if they are not the default ones."""

    def run(self) -> None:
        """Exports and says where."""
        out = pathlib.Path(self.out)
        if self.model is None:
            if self.ar is None or self.nar is None:
                raise UserError("give --ar and --nar, or --model")
            if self.format == "model":
                export_model(self.ar, self.nar, out, which="latest" if self.latest else "best")
                print(f"model directory {self.out}")
                return
            with tempfile.TemporaryDirectory() as folder:
                model = export_model(self.ar, self.nar, folder, which="latest" if self.latest else "best")
        elif self.format == "model":
            raise UserError("--model is a model directory already; choose --format torch or stablehlo")
        else:
            model = load_model_dir(self.model)
        if self.format == "torch":
            torch_state.write(model, out)
            print(f"state dict {out}")
        else:
            self._programs(model, out)
            print(f"programs in {out}, described by programs.json")

    def _programs(self, model: ModelDir, out: pathlib.Path) -> None:
        from valle_jax.interop import stablehlo

        shapes = stablehlo.Shapes(self.rows, self.prefix_tokens, self.max_frames)
        stablehlo.export(model.config_ar, model.config_nar, out, shapes)
        save_params(model, out)
        if model.codec.name == "encodec_24khz":
            from valle_jax.codec.encodec_jax import EncodecJax

            codec = EncodecJax.load(self.codec_weights)
            codec.info.check_same(model.codec, "the installed codec", "the model")
            stablehlo.export_codec(codec, out, self.rows, self.max_frames, stablehlo.PLATFORMS)
