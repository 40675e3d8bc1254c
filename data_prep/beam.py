"""Shards prepared by Apache Beam, on whichever of its runners: the extra `prep`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions

from data_prep.engine import Work
from data_prep.workers import Worker
from valle_jax.errors import WorkError


class PrepareShard(apache_beam.DoFn):
    """Prepares a shard in a process of its own, so that a recording that kills it does not kill Beam's worker."""

    def __init__(self, work: Work):
        self._work = work

    def setup(self) -> None:
        """Once in each of Beam's workers."""
        self._worker = Worker()

    def process(self, shard: int) -> Iterator[int]:
        """Yields the number of records."""
        yield self._work.do(self._worker, shard).utterances.total()

    def teardown(self) -> None:
        """When Beam's worker goes."""
        self._worker.close()


def run_beam(work: Work, shards: Sequence[int], runner: str, options: Sequence[str]) -> None:
    """Prepares shards; `options` are the runner's, as `name=value`.

    Raises:
      WorkError: the pipeline failed.
    """
    arguments = [f"--runner={runner}", *(f"--{option}" for option in options)]
    try:
        with apache_beam.Pipeline(options=PipelineOptions(arguments)) as pipeline:
            numbers = pipeline | "shards" >> apache_beam.Create(list(shards)) | apache_beam.Reshuffle()
            numbers | "prepare" >> apache_beam.ParDo(PrepareShard(work))
    except Exception as error:  # of any runner
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WorkError(f"the Beam pipeline failed: {reason[:300]}; what is complete is kept") from None
