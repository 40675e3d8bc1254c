"""The verb `valle inspect`: what is in a dataset, whether it is intact, and how it differs from another."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tqdm
import tyro

from data_prep.inspection.comparison import differences
from data_prep.inspection.description import describe
from data_prep.inspection.page import page_path, write_page
from data_prep.inspection.plots import require_matplotlib
from data_prep.inspection.statistics import survey
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError, WorkError


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Print what is in a dataset; check every record of it, make a page of it, or compare it with another.

    Example: valle inspect datasets/train-clean-100 --verify --report report.html
    """

    folder: Annotated[str, tyro.conf.Positional]
    """Dataset directory."""
    verify: bool = False
    """Read every record: checksum, ranges, agreement with the index. Exit 1 if one is damaged."""
    speakers: int = 10
    """How many speakers to list, those with the most hours first."""
    report: str | None = None
    """Write a page with plots and audio: an .html file, or a folder for its index.html."""
    sample: int = 2000
    """Records that the report reads for its codes and sources, drawn at random; 0: all."""
    listen: int = 6
    """Records to hear in the report, drawn at random."""
    seed: int = 0
    """Of what is drawn at random."""
    codec_weights: str | None = None
    """Weights of the codec for the audio, where the dataset was made with others than its default ones."""
    compare: str | None = None
    """Another dataset directory: print what differs, instead of what there is. Exit 1 if anything does."""

    def run(self) -> None:
        """Prints, and writes the report.

        Raises:
          UserError: not a complete dataset, an option out of range, or matplotlib is missing.
          WorkError: --verify found damage, listed before with shard, offset and utterance; or --compare differences.
        """
        if min(self.speakers, self.sample, self.listen, self.seed) < 0:
            raise UserError("--speakers, --sample, --listen and --seed cannot be negative")
        if self.report is not None:
            require_matplotlib()
            path = page_path(self.report)
        dataset = Dataset.open(self.folder)
        other = None if self.compare is None else Dataset.open(self.compare)
        if other is None:
            print(describe(dataset, self.speakers))
        if self.verify:
            self._verify(dataset)
        if self.report is not None:
            found = survey(dataset, self.sample, self.seed)
            write_page(path, dataset, found, self.speakers, self.listen, self.seed, self.codec_weights)
            print(f"report: {path}")
        if other is not None:
            lines = differences(dataset, other)
            print("\n".join(lines) or f"{self.folder} and {self.compare} hold the same")
            if lines:
                raise WorkError(f"{self.folder} and {self.compare} differ, as listed above")

    def _verify(self, dataset: Dataset) -> None:
        with tqdm.tqdm(total=len(dataset), desc="verify", unit=" records") as bar:
            damage = list(dataset.verify(progress=bar.update))
        if damage:
            print("\n".join(damage))
            raise WorkError(f"{len(damage)} damaged or inconsistent records in {self.folder}, listed above")
        print(f"verified: all {len(dataset):,} records are intact")
