"""The page of `valle inspect --report`: one HTML file that holds its pictures and its audio."""

from __future__ import annotations

import base64
import html
import io
import pathlib
from collections.abc import Sequence

import numpy as np
import soundfile

from data_prep.files import whole_text
from data_prep.inspection import plots
from data_prep.inspection.statistics import Survey, draw, phoneme_rates, seconds_of
from data_prep.summary import count_rejected, describe_counts, describe_totals
from valle_jax.codec import get_codec
from valle_jax.codec.base import pad_codes
from valle_jax.data.dataset import Dataset
from valle_jax.data.schema import SPLITS, Utterance
from valle_jax.errors import UserError
from valle_jax.storage import is_remote
from valle_jax.version import __version__

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .3em .6em; border-bottom: 1px solid #ccc; text-align: left }
small { color: #666 } img { max-width: 100% } .wide { overflow-x: auto }
"""


def page_path(report: str) -> pathlib.Path:
    """The file of `--report`: itself, or index.html of a folder, which is made.

    Raises:
      UserError: it cannot be written there.
    """
    path = pathlib.Path(report)
    if is_remote(report):
        raise UserError(f"--report {report}: give a local file or folder")
    path = path if path.suffix == ".html" else path / "index.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report {path}: {error.strerror}") from None
    return path


def write_page(
    path: pathlib.Path,
    dataset: Dataset,
    found: Survey,
    n_speakers: int,
    n_heard: int,
    seed: int,
    codec_weights: str | None = None,
) -> None:
    """Writes the page.

    Args:
      path: of the file.
      dataset: what the page is of.
      found: in its records.
      n_speakers: speakers and sources to list, those with most hours first.
      n_heard: records to hear, drawn by `seed`.
      codec_weights: of the codec that decodes them; None: its default ones.
    """
    info = dataset.info
    read = f"all {found.n_records:,} records"
    if found.n_records < len(dataset):
        read = f"{found.n_records:,} of {len(dataset):,} records, drawn at random (seed {seed})"
    speakers = {name: seconds / 3600 for name, seconds in info.speaker_seconds.items()}
    scale = info.totals["hours"] / found.n_frames
    sources = {name: frames * scale for name, frames in found.source_frames.items()}
    rejected = count_rejected(dataset.path)
    sections = {
        "Splits": _table([["", "utterances", "speakers", "hours"], *_splits(dataset)]),
        "Lengths": _image(plots.histogram(seconds_of(dataset), "seconds"))
        + _image(plots.histogram(phoneme_rates(dataset), "phonemes per second")),
        "Hours by speaker": _image(plots.hours_by_rank(np.array(list(speakers.values()))))
        + _table([["speaker", "hours"], *_most(speakers, n_speakers)]),
        "Hours by source": f"<p>By the first folder of the source, from {read}.</p>"
        + _table([["source", "hours"], *_most(sources, n_speakers)]),
        "Codes": f"<p>From {read}, {found.n_frames:,} frames. Dead: not used in any of them.</p>"
        + _table(_levels(found))
        + _image(plots.entropies(found.usage))
        + _image(plots.usage_by_rank(found.usage)),
        "Rejected": _table([["reason", "recordings"], *([name, f"{n:,}"] for name, n in rejected.most_common())])
        if rejected
        else "<p>None.</p>",
        f"Records to hear, drawn at random (seed {seed})": _heard(dataset, n_heard, seed, codec_weights),
        "Made by": _table([["fact", "value"], *([name, str(value)] for name, value in _facts(dataset))]),
    }
    name = html.escape(str(dataset.path))
    with whole_text(path) as file:
        file.write(
            f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n<style>{_STYLE}</style>\n'
            f"<h1>{name}</h1>\n<p>{html.escape(describe_totals(info))}. valle-jax {__version__}.</p>\n"
            + "".join(f'<h2>{title}</h2>\n<div class="wide">{body}</div>\n' for title, body in sections.items())
            + "</html>\n"
        )


def _splits(dataset: Dataset) -> list[list[str]]:
    index, rows = dataset.index, []
    for number, split in enumerate(SPLITS):
        members = index.split == number
        seconds = index.n_frames[members].sum(dtype=np.int64) / dataset.info.codec.frames_per_second
        n_speakers = len(np.unique(index.speaker[members]))
        rows.append([split, f"{members.sum():,}", f"{n_speakers:,}", f"{seconds / 3600:.2f}"])
    return rows


def _levels(found: Survey) -> list[list[str]]:
    """A row per level of the codec."""
    usage = found.usage
    table = [["level", "entropy, bits", "codes as if uniform", "dead codes", "most frequent code", "its share"]]
    for level, (entropy, dead, shares) in enumerate(zip(usage.entropy_bits, usage.dead, usage.shares, strict=True), 1):
        most = shares.argmax()
        numbers = [f"{level}", f"{entropy:.2f}", f"{2**entropy:.0f}", f"{dead:,}", f"{most}", f"{shares[most]:.2%}"]
        table.append(numbers)
    return table


def _most(hours: dict[str, float], count: int) -> list[list[str]]:
    """Rows of those with the most hours, and of the others together."""
    ordered = sorted(hours.items(), key=lambda item: (-item[1], item[0]))
    rows = [[name, f"{value:.2f}"] for name, value in ordered[:count]]
    if others := ordered[count:]:
        rows.append([f"{len(others):,} others", f"{sum(value for _, value in others):.2f}"])
    return rows


def _facts(dataset: Dataset) -> list[tuple[str, object]]:
    info = dataset.info
    return [
        ("codec", f"{info.codec.name} {info.codec.weight_hash} {info.codec.parameters or ''}"),
        ("vocabulary", f"{info.vocabulary.version}, {info.vocabulary.size} ids"),
        ("unknown symbols", describe_counts(info.unknown_symbols) or "none"),
        *info.versions.items(),
        *((f"option {name}", value) for name, value in info.options.items()),
    ]


def _heard(dataset: Dataset, count: int, seed: int, codec_weights: str | None) -> str:
    """A table of records with players, or a line that says why there are none to hear."""
    utterances = [dataset.read(int(i)) for i in draw(len(dataset), count, seed)]
    if not utterances:
        return "<p>None.</p>"
    info = dataset.info
    try:
        codec = get_codec(info.codec.name, codec_weights)
        info.codec.check_same(codec.info, str(dataset.path), "this audio would be decoded")
        audio = codec.decode(*pad_codes([u.codes for u in utterances], info.codec.codebooks))
        players = [_player(samples, info.codec.sample_rate) for samples in audio]
        note = ""
    except UserError as error:  # a page without audio is still worth having
        players = ["" for _ in utterances]
        note = f"<p>Not to be heard: {html.escape(str(error))}.</p>"
    rows = (
        f"<tr><td>{player}</td><td>{_said(utterance, dataset)}</td></tr>\n"
        for player, utterance in zip(players, utterances, strict=True)
    )
    return f"{note}<table>{''.join(rows)}</table>"


def _said(utterance: Utterance, dataset: Dataset) -> str:
    seconds = len(utterance.codes) / dataset.info.codec.frames_per_second
    facts = f"{utterance.utterance_id}, speaker {utterance.speaker_id}, {seconds:.2f} s, {utterance.source}"
    phonemes = dataset.info.vocabulary.decode(utterance.phonemes)
    return f"{html.escape(utterance.text)}<br>{html.escape(phonemes)}<br><small>{html.escape(facts)}</small>"


def _player(samples: np.ndarray, sample_rate: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), sample_rate, format="FLAC")
    return f'<audio controls preload="none" src="{_embedded("audio/flac", file.getvalue())}"></audio>'


def _image(png: bytes) -> str:
    return f'<img alt="" src="{_embedded("image/png", png)}">\n'


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the heading."""
    lines = ""
    for row in rows:
        tag = "td" if lines else "th"
        lines += "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>\n"
    return f"<table>{lines}</table>"
