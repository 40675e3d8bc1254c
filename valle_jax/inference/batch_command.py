"""The verb `valle batch`."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import tqdm
import tyro

from valle_jax.inference.request import Options


@dataclasses.dataclass(frozen=True)
class BatchCommand:
    """Say any number of texts: a line of JSON a job, an audio file and a line of results each.

    A job has id, text, and prompt with prompt_text (or voice: see `valle voice`), and may have a seed. The same command
    again goes on where it was. Several hosts share the jobs with --shard-index and --num-shards. Bad takes are drawn
    again; what stays bad says so in `problems`.

    Example: valle batch --model MODEL_DIR --jobs jobs.jsonl --out speech
    """

    model: str
    """Model directory, as `valle export` writes it."""
    jobs: str
    """File with a JSON object a line; audio paths in it are relative to it."""
    out: str
    """Folder to write: audio/ID.wav and results.jsonl."""
    format: Literal["wav", "flac", "ogg"] = "wav"
    """Of the audio files."""
    language: str = "en-us"
    """Of all texts, as espeak-ng names it."""
    slots: int = 16
    """Utterances that are drawn side by side; with --mesh a multiple of its data axis."""
    max_tokens: int = 2048
    """Of prompt, texts and speech of one job; memory and time of every step grow with it."""
    seed: int = 0
    """Of the random draws of jobs that name none."""
    speaking: tyro.conf.OmitArgPrefixes[Options] = Options()
    """How everything is said."""
    mesh: str | None = None
    """Chips of this host, such as data=4,tensor=2; default: one chip."""
    shard_index: int | None = None
    """Which of the hosts that share the jobs this is, from 0; default: what SLURM's arrays (SLURM_ARRAY_TASK_ID) and
    Kubernetes' indexed jobs (JOB_COMPLETION_INDEX) say."""
    num_shards: int | None = None
    """How many hosts share the jobs; default: SLURM_ARRAY_TASK_COUNT, or 1."""
    voices: str | None = None
    """Folder of stored voices; default: the user's."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not to be fetched."""

    def run(self) -> None:
        """Does the jobs and prints what came of them as one line of JSON."""
        from valle_jax.inference.batch import Batch, Settings, Totals
        from valle_jax.inference.synthesizer import Synthesizer
        from valle_jax.parallel.job_array import which_task
        from valle_jax.parallel.mesh import make_mesh, parse_mesh

        part, parts = which_task(self.shard_index, self.num_shards)
        settings = Settings(
            self.speaking,
            slots=self.slots,
            max_tokens=self.max_tokens,
            seed=self.seed,
            suffix=f".{self.format}",
            voices=self.voices,
            mesh=None if self.mesh is None else make_mesh(parse_mesh(self.mesh)),
        )
        synthesizer = Synthesizer.load(self.model, language=self.language, codec_weights=self.codec_weights)
        batch = Batch(synthesizer, self.jobs, self.out, settings, part=part, parts=parts)
        with tqdm.tqdm(desc="batch", unit=" jobs") as bar:

            def show(totals: Totals) -> None:
                bar.set_postfix_str(f"{1 / totals.real_time_factor:.2f} audio hours/h, {totals.with_problems} bad")
                bar.update(totals.done + totals.failed - bar.n)

            totals = batch.run(show)
        facts = dataclasses.asdict(totals) | {"occupancy": round(batch.occupancy, 3)}
        facts["audio_seconds"] = round(facts["audio_seconds"], 1)
        del facts["started"]
        print(json.dumps({"out": self.out, **facts}))
