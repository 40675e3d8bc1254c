"""The verb `valle import-checkpoint`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

import tyro

from valle_jax.codec.base import CodecInfo
from valle_jax.codec.encodec_files import HUB_HASH, find
from valle_jax.errors import UserError
from valle_jax.inference.model_dir import ModelDir, save_model_dir
from valle_jax.interop import state_file
from valle_jax.interop.layout import Imported, convert
from valle_jax.model import build
from valle_jax.text.token_table import TokenTable
from valle_jax.version import __version__

MAX_TOKENS = 3000  # about 30 s of speech with its text; checkpoints do not tell how long their utterances were

CARD = """# A VALL-E model

Imported by valle-jax {version} from `{file}`, of the layout {layout}. Codec: {codec.name}, {codec.codebooks} codebooks.
Text: {text}.

| decoder | layers | width | heads | parameters |
|---|---|---|---|---|
| AR | {ar.n_layers} | {ar.d_model} | {ar.n_heads} | {ar_count:,} |
| NAR | {nar.n_layers} | {nar.d_model} | {nar.n_heads} | {nar_count:,} |

The licence of the checkpoint applies to this directory too.

Zero-shot text to speech imitates the voice of its prompt: use recordings of people who agreed to it, and say that the
result is synthetic.
"""


@dataclasses.dataclass(frozen=True)
class ImportCheckpoint:
    """Make a model directory of a PyTorch checkpoint of VALL-E-X or lifeiteng/vall-e.

    Example: valle import-checkpoint vallex-checkpoint.pt --text-table bpe_69.json --out model
    """

    file: tyro.conf.Positional[str]
    """Checkpoint: .pt or .pth (a state dict, or one under `model`), .safetensors, or .npz with keys `state/…`."""
    out: str
    """Model directory to write."""
    layout: Literal["auto", "vallex", "lifeiteng"] = "auto"
    """Layout of the tensors; auto: what the tensors say."""
    heads: int | None = None
    """Attention heads of the AR decoder, which tensors do not tell; default: heads of 64, as published models have."""
    text_table: str | None = None
    """The model's own text table: bpe_69.json of VALL-E-X, unique_text_tokens.k2symbols of lifeiteng/vall-e. It cannot
    be shipped here; without it the model says nothing."""
    average: bool = False
    """Take the moving average of the parameters (`model_avg`)."""
    prefix_mode: Literal[0, 1, 2, 4] = 1
    """How its NAR was trained to use prompts; 2 and 4, which hide the prompt's phonemes from it, are refused."""
    codec_weights: str | None = None
    """EnCodec's weights, if they are not the official ones."""

    def run(self) -> None:
        """Imports, and says what was found."""
        if self.prefix_mode in (2, 4):
            raise UserError(
                f"--prefix-mode {self.prefix_mode}: its NAR must not see the prompt's phonemes, and ours would show "
                "them; checkpoints of prefix modes 0 and 1 can be imported"
            )
        try:
            layout = None if self.layout == "auto" else self.layout
            imported = convert(state_file.read(self.file, average=self.average), layout, self.heads)
        except ValueError as error:
            raise UserError(f"cannot import {self.file}: {error}") from None
        weight_hash = HUB_HASH if self.codec_weights is None else find(self.codec_weights)[1]
        codec = CodecInfo(
            name="encodec_24khz",
            sample_rate=24_000,
            frames_per_second=75.0,
            codebooks=imported.config_ar.codebooks,
            codebook_size=imported.config_ar.codebook_size,
            weight_hash=weight_hash,
            parameters={"bandwidth_kbps": 0.75 * imported.config_ar.codebooks},
        )
        table = self._table(imported)
        model = ModelDir(
            imported.config_ar,
            imported.params_ar,
            imported.config_nar,
            imported.params_nar,
            table,
            codec,
            max_tokens=MAX_TOKENS,
        )
        facts = {"ar": model.config_ar, "nar": model.config_nar}
        counts = {f"{stage}_count": build(config).n_parameters for stage, config in facts.items()}
        save_model_dir(
            self.out,
            model,
            CARD.format(
                version=__version__,
                file=pathlib.Path(self.file).name,
                layout=imported.layout,
                codec=codec,
                text=f"{len(table.tokens)} tokens of {table.version}" if table.tokens else "no table was given",
                **facts,
                **counts,
            ),
        )
        ar, nar = model.config_ar, model.config_nar
        print(
            f"{imported.layout}: AR {ar.n_layers} × {ar.d_model}, {ar.n_heads} heads; "
            f"NAR {nar.n_layers} × {nar.d_model}, {'tied heads' if imported.tied else 'heads of their own'}; "
            f"{ar.n_symbols} text symbols, {ar.n_languages} language embeddings, "
            f"{'a' if ar.prepend_bos else 'no'} begin-of-audio token\nmodel directory {self.out}"
        )
        if not table.tokens:
            print("no text table: the model cannot be given text until it is imported with --text-table")

    def _table(self, imported: Imported) -> TokenTable:
        size = imported.config_ar.n_symbols
        if self.text_table is None:
            return TokenTable("none", {}, size)
        make = TokenTable.of_vallex if imported.layout == "vallex" else TokenTable.of_lifeiteng
        return make(self.text_table, size)
