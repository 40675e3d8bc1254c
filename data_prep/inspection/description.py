"""What is in a dataset, as text for the terminal; reads no record."""

from __future__ import annotations

import textwrap

import numpy as np

from data_prep.summary import describe_counts, describe_totals
from valle_jax.data.dataset import Dataset
from valle_jax.data.schema import SPLITS

_BINS = 12
_BAR_WIDTH = 40


def describe(dataset: Dataset, n_speakers: int) -> str:
    """The report of `valle inspect`, as text."""
    info, index = dataset.info, dataset.index
    codec, rate = info.codec, info.codec.frames_per_second
    lines = [
        f"{dataset.path}: {describe_totals(info)}",
        f"codec: {codec.name} ({codec.weight_hash}), {codec.sample_rate} Hz, {rate:g} frames/s, "
        f"{codec.codebooks} codebooks of {codec.codebook_size}",
        f"vocabulary: {info.vocabulary.version}, {info.vocabulary.size} ids",
        f"unknown symbols: {describe_counts(info.unknown_symbols) or 'none'}",
        "",
        f"{'split':16}{'utterances':>12}{'speakers':>10}{'hours':>10}",
    ]
    for number, split in enumerate(SPLITS):
        members = index.split == number
        if members.any():
            hours = index.n_frames[members].sum(dtype=np.int64) / rate / 3600
            lines.append(f"{split:16}{members.sum():12,}{len(np.unique(index.speaker[members])):10,}{hours:10.2f}")
    seconds = sorted(info.speaker_seconds.items(), key=lambda item: (-item[1], item[0]))
    lines += ["", f"{'speaker':28}{'hours':>10}"]
    lines += [f"{textwrap.shorten(name, 27, placeholder='…'):28}{s / 3600:10.2f}" for name, s in seconds[:n_speakers]]
    if len(seconds) > n_speakers:
        others = seconds[n_speakers:]
        lines.append(f"{f'{len(others):,} others':28}{sum(s for _, s in others) / 3600:10.2f}")
    lines += ["", *histogram("frames", index.n_frames), "", *histogram("phonemes", index.n_phonemes)]
    return "\n".join(lines)


def histogram(name: str, lengths: np.ndarray) -> list[str]:
    """Lines of a bar chart of lengths int [N], N > 0, over equal bins."""
    lines = [f"{name} per utterance: least {lengths.min()}, median {np.median(lengths):g}, most {lengths.max()}"]
    n_bins = min(_BINS, int(lengths.max()) - int(lengths.min()) + 1)
    edges = np.linspace(int(lengths.min()), int(lengths.max()) + 1, n_bins + 1).round().astype(int)
    counts, _ = np.histogram(lengths, edges)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * int(np.ceil(count / counts.max() * _BAR_WIDTH))
        lines.append(f"{low:6d}-{high - 1:<6d}{count:10,} {bar}".rstrip())
    return lines
