"""What differs between two datasets: how they were made, what they hold, and records by their content."""

from __future__ import annotations

import hashlib
import itertools
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from data_prep.inspection.statistics import CodeUsage, distance, divergence_bits, phoneme_rates, seconds_of
from valle_jax.data.dataset import Dataset
from valle_jax.data.schema import SPLITS

_NAMED = 10  # utterances and speakers of a kind that are named
_COLUMNS = ("id", "text", "phonemes", "codes", "start frames", "speaker, language, source or split")


def differences(mine: Dataset, others: Dataset, progress: bool = True) -> list[str]:
    """A line for each difference, its two values as `MINE | OTHERS`; none where both hold the same in the same order.

    Reads all records; memory holds 48 bytes of each.

    Raises:
      UserError: a record is damaged.
    """
    lines = [*_of_making(mine, others), *_of_speakers(mine, others)]
    (facts, usage), (other_facts, other_usage) = (_digest(dataset, progress) for dataset in (mine, others))
    lines += _of_records(mine, others, facts, other_facts)
    for name, measure in (("seconds", seconds_of), ("phonemes per second", phoneme_rates)):
        values, other_values = measure(mine), measure(others)
        if apart := distance(values, other_values):
            medians = f"median {np.median(values):.2f} | {np.median(other_values):.2f}"
            lines.append(f"{name}: {medians}, largest difference of the cumulative distributions {apart:.3f}")
    if usage.counts.shape == other_usage.counts.shape and (usage.shares != other_usage.shares).any():
        by_level = " ".join(f"{bits:.4f}" for bits in divergence_bits(usage, other_usage))
        lines.append(f"codes: Jensen-Shannon divergence by level, bits: {by_level}")
    return lines


def _of_making(mine: Dataset, others: Dataset) -> Iterator[str]:
    """Lines for dataset.json; vocabularies and speakers by what only one has."""
    a, b = mine.info, others.info
    yield from _of_values((), *({**info.to_json(), "vocabulary": None, "speaker_seconds": None} for info in (a, b)))
    if a.vocabulary != b.vocabulary:
        symbols, other_symbols = set(a.vocabulary.symbols), set(b.vocabulary.symbols)
        yield f"vocabulary: {a.vocabulary.version} | {b.vocabulary.version}"
        yield from _only("symbols", sorted(symbols - other_symbols), sorted(other_symbols - symbols))


def _of_values(names: tuple[str, ...], mine: dict, others: dict) -> Iterator[str]:
    """Lines for the values of two dicts that differ, nested ones by the names (in lists, numbers) of all levels."""
    for key in sorted(mine.keys() | others.keys()):
        values = (mine.get(key), others.get(key))
        a, b = ({str(i): v for i, v in enumerate(value)} if isinstance(value, list) else value for value in values)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _of_values((*names, key), a, b)
        elif a != b:
            yield f"{' '.join((*names, key))}: {' | '.join(textwrap.shorten(str(value), 100) for value in (a, b))}"


def _of_speakers(mine: Dataset, others: Dataset) -> Iterator[str]:
    a, b = mine.info.speaker_seconds, others.info.speaker_seconds
    yield from _only("speakers", sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys()))
    changed = [f"{name} {a[name]:.2f} | {b[name]:.2f}" for name in sorted(a.keys() & b.keys()) if a[name] != b[name]]
    if changed:
        yield f"speakers with other seconds: {_named(changed)}"


def _only(what: str, mine: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    for where, names in (("first", mine), ("second", others)):
        if names:
            yield f"{what} only in the {where}: {_named(names)}"


def _named(names: Sequence[str]) -> str:
    rest = ", …" if len(names) > _NAMED else ""
    return f"{len(names):,} ({', '.join(names[:_NAMED])}{rest})"


def _digest(dataset: Dataset, progress: bool) -> tuple[np.ndarray, CodeUsage]:
    """A hash of each record's `_COLUMNS`, uint64 [N, 6], and the usage of codes."""
    codec, vocabulary = dataset.info.codec, dataset.info.vocabulary
    facts = np.empty((len(dataset), len(_COLUMNS)), np.uint64)
    usage = CodeUsage(codec.codebooks, codec.codebook_size)
    for i in tqdm.trange(len(dataset), desc=str(dataset.path), unit=" records", disable=not progress):
        u = dataset.read(i)
        labels = "\0".join((u.speaker_id, u.language, u.source, SPLITS[dataset.index.split[i]]))
        # Phonemes as symbols, so that another vocabulary alone changes no record.
        strings = (u.utterance_id, u.text, vocabulary.decode(u.phonemes))
        starts = b"" if u.phoneme_frames is None else u.phoneme_frames.tobytes()
        contents = (*(s.encode() for s in strings), np.ascontiguousarray(u.codes).tobytes(), starts, labels.encode())
        facts[i] = [int.from_bytes(hashlib.blake2b(c, digest_size=8).digest(), "little") for c in contents]
        usage.add(u.codes)
    return facts, usage


def _of_records(mine: Dataset, others: Dataset, facts: np.ndarray, other_facts: np.ndarray) -> Iterator[str]:
    ids, other_ids = facts[:, 0], other_facts[:, 0]
    for where, dataset, missing in (
        ("first", mine, ~np.isin(ids, other_ids)),
        ("second", others, ~np.isin(other_ids, ids)),
    ):
        if missing.any():
            yield f"utterances only in the {where}: {_utterances(dataset, np.flatnonzero(missing))}"
    _, here, there = np.intersect1d(ids, other_ids, return_indices=True)
    for column, name in itertools.islice(enumerate(_COLUMNS), 1, None):
        changed = facts[here, column] != other_facts[there, column]
        if changed.any():
            yield f"utterances with other {name}: {_utterances(mine, np.sort(here[changed]))}"
    if len(here) == len(ids) == len(other_ids) and (ids != other_ids).any():
        yield "the records are in another order"


def _utterances(dataset: Dataset, numbers: np.ndarray) -> str:
    rest = ", …" if len(numbers) > _NAMED else ""
    return f"{len(numbers):,} ({', '.join(dataset.read(int(i)).utterance_id for i in numbers[:_NAMED])}{rest})"
