"""What a worker is asked to do."""

from __future__ import annotations

import dataclasses

from data_prep.filters import Filters, Rejection
from data_prep.sources import Recording
from valle_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """All that a worker process needs for one shard.

    Attributes:
      folder: the dataset.
      shard, n_shards: which of how many.
      recordings: of this shard, in order.
      splits: of each recording.
      codec, codec_weights: as `get_codec` takes them.
      language: of recordings that name none.
      vocabulary: of the dataset; None where it is not known yet.
      min_seconds, max_seconds: durations kept.
      filters: that recordings must pass.
      align: whether records say at which frame each phoneme starts.
      careful: recording by recording, each announced before it is touched.
      poison: recordings that are not to be touched, by position, and why.
    """

    folder: str
    shard: int
    n_shards: int
    recordings: tuple[Recording, ...]
    splits: tuple[str, ...]
    codec: str
    codec_weights: str | None
    language: str
    vocabulary: Vocabulary | None
    min_seconds: float
    max_seconds: float
    filters: Filters = Filters()
    align: bool = False
    careful: bool = False
    poison: dict[int, Rejection] = dataclasses.field(default_factory=dict)

    def groups(self) -> list[list[int]]:
        """Positions of the recordings that are done together."""
        members = [i for i in range(len(self.recordings)) if i not in self.poison]
        return [[i] for i in members] if self.careful else [members]
