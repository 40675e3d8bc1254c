"""What a preparation came to: the files that describe the whole dataset, and the lines printed at the end."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import soundfile

from data_prep import tfds_metadata
from data_prep.files import whole_text
from data_prep.shards import ShardReport
from valle_jax import storage
from valle_jax.codec import CodecInfo
from valle_jax.data.dataset import SCHEMA_VERSION, DatasetInfo
from valle_jax.data.schema import SPLITS
from valle_jax.errors import WorkError
from valle_jax.text import phonemizer
from valle_jax.text.vocabulary import Vocabulary
from valle_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a dataset came to.

    Attributes:
      folder: the dataset.
      info: its dataset.json.
      rejected: recordings that were not used, by reason.
    """

    folder: str
    info: DatasetInfo
    rejected: collections.Counter[str]

    @classmethod
    def of(cls, folder: str | os.PathLike) -> Summary:
        """The summary of a complete dataset."""
        return cls(os.fspath(folder), DatasetInfo.load(folder), count_rejected(folder))

    def __str__(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.folder}: {describe_totals(self.info)}"]
        if self.info.unknown_symbols:
            lines.append(f"unknown symbols: {describe_counts(self.info.unknown_symbols)}")
        if self.rejected:
            path = os.path.join(self.folder, "rejected.jsonl")
            lines.append(f"rejected: {describe_counts(self.rejected)}; each with its reason in {path}")
        return "\n".join(lines)


def finish(
    folder: pathlib.Path, reports: Iterable[ShardReport], codec: CodecInfo, vocabulary: Vocabulary, options: dict
) -> None:
    """Writes the files that describe all shards; dataset.json last, since it says that everything is there.

    Raises:
      WorkError: no recording was usable; rejected.jsonl is written all the same.
    """
    total = ShardReport()
    shard_lengths = []
    with whole_text(folder / "rejected.jsonl") as rejected:
        for report in reports:
            rejected.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in report.rejected)
            shard_lengths.append(report.utterances.total())
            total.add_counts(report)
    if not total.utterances.total():
        reasons = count_rejected(folder)
        raise WorkError(
            f"none of the {reasons.total()} recordings is usable: {describe_counts(reasons)}; "
            f"see {folder / 'rejected.jsonl'}"
        )
    describe_dataset(folder, shard_lengths, total, codec, vocabulary, options, aligned=bool(options.get("align")))


def describe_dataset(
    folder: pathlib.Path,
    shard_lengths: Sequence[int],
    total: ShardReport,
    codec: CodecInfo,
    vocabulary: Vocabulary,
    options: dict,
    versions: dict[str, str] | None = None,
    *,
    aligned: bool,
) -> None:
    """Writes TFDS metadata and dataset.json for shards of so many records; `versions` None: of what is installed."""
    n_bytes = sum(path.stat().st_size for path in folder.glob("data-*.tfrecord"))
    tfds_metadata.write_metadata(folder, shard_lengths, n_bytes, aligned=aligned)
    speaker_seconds = {name: n / codec.frames_per_second for name, n in sorted(total.speaker_frames.items())}
    DatasetInfo(
        schema_version=SCHEMA_VERSION,
        codec=codec,
        vocabulary=vocabulary,
        totals={
            "utterances": total.utterances.total(),
            "speakers": len(speaker_seconds),
            "frames": total.frames.total(),
            "phonemes": total.phonemes,
            "hours": round(total.frames.total() / codec.frames_per_second / 3600, 6),
            "splits": {split: total.utterances[split] for split in SPLITS},
        },
        speaker_seconds=speaker_seconds,
        unknown_symbols=dict(sorted(total.unknown_symbols.items())),
        versions=_versions(codec) if versions is None else versions,
        options=options,
        aligned=aligned,
    ).save(folder)


def count_rejected(folder: str | os.PathLike) -> collections.Counter[str]:
    """Lines of rejected.jsonl by reason; none where there is no such file. The folder may be a URL."""
    name = "rejected.jsonl"
    try:
        with (
            io.BytesIO(storage.folder(folder).read(name))
            if storage.is_remote(folder)
            else open(pathlib.Path(folder) / name, "rb")
        ) as lines:
            return collections.Counter(json.loads(line)["reason"] for line in lines)
    except FileNotFoundError:
        return collections.Counter()


def describe_counts(counts: dict[str, int]) -> str:
    """`too long 3, no phonemes 1`: most frequent first."""
    return ", ".join(
        f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def describe_totals(info: DatasetInfo) -> str:
    """One line of what a dataset holds."""
    totals = info.totals
    splits = describe_counts({split: n for split, n in totals["splits"].items() if n})
    return f"{totals['utterances']:,} utterances, {totals['hours']:.2f} h, {totals['speakers']:,} speakers ({splits})"


def _versions(codec: CodecInfo) -> dict[str, str]:
    """Versions of what decides the bytes of a dataset."""
    packages = ["numpy", "soundfile", "soxr"] + (["torch", "encodec"] if codec.name.startswith("encodec") else [])
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "valle-jax": __version__,
        **phonemizer.versions(),
        **versions,
        "libsndfile": soundfile.__libsndfile_version__,
    }
