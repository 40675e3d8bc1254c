"""Pictures of a dataset, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from data_prep.inspection.statistics import CodeUsage
from valle_jax.errors import UserError

_BINS = 60


def require_matplotlib() -> None:
    """Raises UserError unless matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401  # asked for before hours of reading
    except ImportError:
        raise UserError("the report needs matplotlib: pip install 'valle-jax[prep]'") from None


def histogram(values: np.ndarray, label: str) -> bytes:
    """A histogram of values [N] per utterance, N > 0, and their median."""

    def draw(axis) -> None:
        axis.hist(values, _BINS)
        axis.axvline(np.median(values), color="black", linewidth=1, label=f"median {np.median(values):.2f}")
        axis.legend()

    return _picture(draw, label, "utterances")


def hours_by_rank(hours: np.ndarray) -> bytes:
    """Hours of speakers [K], those with most first."""
    return _picture(
        lambda axis: axis.bar(np.arange(1, len(hours) + 1), np.sort(hours)[::-1], width=1), "speaker, by rank", "hours"
    )


def entropies(usage: CodeUsage) -> bytes:
    """Entropy of each level, under the most that there can be."""
    levels, size = usage.counts.shape

    def draw(axis) -> None:
        axis.bar(np.arange(1, levels + 1), usage.entropy_bits)
        axis.axhline(np.log2(size), color="black", linewidth=1, label=f"uniform: {np.log2(size):.2f} bits")
        axis.set_ylim(0, 1.1 * np.log2(size))
        axis.legend(loc="lower right")

    return _picture(draw, "level", "entropy, bits")


def usage_by_rank(usage: CodeUsage) -> bytes:
    """Share of each level's frames by code, the most frequent first; a line ends where the dead codes begin."""
    size = usage.counts.shape[1]

    def draw(axis) -> None:
        for level, shares in enumerate(np.sort(usage.shares, axis=1)[:, ::-1], start=1):
            used = shares[shares > 0]
            axis.plot(np.arange(1, len(used) + 1), used, linewidth=1, label=f"level {level}")
        axis.axhline(1 / size, color="black", linewidth=1, linestyle=":", label="uniform")
        axis.set(yscale="log", xlim=(0, size))
        axis.legend(fontsize=7)

    return _picture(draw, "code, by rank", "share of frames")


def _picture(draw: Callable, x_label: str, y_label: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    draw(axis)
    axis.set(xlabel=x_label, ylabel=y_label)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png")
    return file.getvalue()
