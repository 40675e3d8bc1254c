"""The verb `valle transcribe`: audio without text becomes a manifest that `valle prepare` reads."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
import shutil
import time

import tqdm

from data_prep import listing, shared_plan, sources
from data_prep.files import whole_text
from data_prep.isolation import run_isolated
from data_prep.plan import Plan, make_plan
from data_prep.summary import count_rejected, describe_counts
from data_prep.transcription.pieces import PARTS, PiecesJob, part_path, transcribe_shard
from data_prep.transcription.segmentation import Segmentation
from data_prep.workers import Worker, map_unordered
from valle_jax.errors import UserError, WorkError
from valle_jax.hearing.recognition import get_recogniser, pocketsphinx_version
from valle_jax.parallel.job_array import which_task

MANIFEST = "manifest.jsonl"
REJECTED = "rejected.jsonl"


@dataclasses.dataclass(frozen=True)
class Transcribe:
    """Cut audio at pauses and write down what is said in each piece.

    Killed, it goes on where it was when run again. What cannot be used is listed in rejected.jsonl.

    Example: valle transcribe --source librilight/small --out books
    then: valle prepare --source books/manifest.jsonl --out datasets/books
    """

    source: str
    """A folder of audio, or a corpus as `valle prepare` reads it, whose texts are not looked at; no archive or tfds."""
    out: str
    """Folder to write; manifest.jsonl in it is what `valle prepare` reads."""
    layout: str = "auto"
    """As docs/data.md describes them, or folders; auto: recognised."""
    recogniser: str = "pocketsphinx"
    """pocketsphinx (English, offline), hubert-large, whisper, parakeet, or a model id or folder of transformers."""
    segmentation: Segmentation = Segmentation()
    """Where audio is cut."""
    processes: int = 0
    """Worker processes; 0: one per CPU. The manifest does not depend on it."""
    shard_recordings: int = 16
    """Most recordings per shard; a kill loses at most the shards in work."""
    shard_index: int | None = None
    """Do this task's part of the shards, of --num-shards tasks that run this command; from 0. Default: what SLURM's job
    arrays and Kubernetes' indexed jobs say."""
    num_shards: int | None = None
    """How many tasks run this command; whichever ends last writes the manifest."""
    hang_seconds: float = 600.0
    """A worker without progress for so long hangs; the recording that it is at is rejected in the end."""

    def __post_init__(self):
        if self.shard_recordings <= 0 or self.processes < 0 or self.hang_seconds <= 0:
            raise UserError("--shard-recordings and --hang-seconds must be positive and --processes not negative")

    def run(self) -> None:
        """Transcribes and prints what came out."""
        if not transcribe(self):
            print(f"{self.out}: this task's shards are complete, others' are not yet; the last task finishes")
            return
        pieces: collections.Counter[str] = collections.Counter()  # by speaker
        hours = 0.0
        with open(pathlib.Path(self.out) / MANIFEST, encoding="utf-8") as manifest:
            for entry in map(json.loads, manifest):
                pieces[entry["speaker"]] += 1
                hours += (entry["end"] - entry["start"]) / 3600
        print(f"{self.out}/{MANIFEST}: {pieces.total():,} pieces, {hours:.2f} h, {len(pieces):,} speakers")
        reasons = count_rejected(self.out)
        if reasons:
            print(f"rejected: {describe_counts(reasons)}; see {self.out}/{REJECTED}")


def transcribe(options: Transcribe, progress: bool = True) -> bool:
    """Transcribes a corpus, or a task's part of it; of a transcription that was begun, only what is missing.

    Returns:
      Whether it is complete; other tasks may still be at work.

    Raises:
      UserError: wrong arguments, or `options.out` was begun with other options or from another source.
      WorkError: nothing was heard, or a shard failed again and again.
    """
    index, count = which_task(options.shard_index, options.num_shards)
    layout = options.layout
    if layout == "auto":
        layout = sources.detect_layout(options.source, without_text=True)
    if layout in ("archives", "tfds"):
        raise UserError(f"--source {options.source} is of layout {layout}, which no manifest can point into: unpack it")
    get_recogniser(options.recogniser)  # raises where it cannot be had
    folder = pathlib.Path(options.out)
    plan = _begin(options, layout, folder, shared=count > 1, progress=progress)
    try:
        if not (folder / MANIFEST).exists():
            (folder / PARTS).mkdir(exist_ok=True)
            _run(options, folder, plan, range(index, plan.n_shards, count), progress)
            if any(not part_path(folder, shard, plan.n_shards).exists() for shard in range(plan.n_shards)):
                return False
            _finish(folder, plan.n_shards)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        listing.remove(folder)
    except OSError as error:
        if not (isinstance(error, FileNotFoundError) and (folder / MANIFEST).exists()):  # another task has finished
            raise WorkError(f"cannot write {options.out}: {error.strerror or error}") from None
    return True


def _begin(options: Transcribe, layout: str, folder: pathlib.Path, *, shared: bool, progress: bool) -> Plan:
    """The plan that is there, which must be the same, or a new one."""
    deciding = {
        "layout": layout,
        "recogniser": options.recogniser,
        **{f"segmentation.{name}": value for name, value in dataclasses.asdict(options.segmentation).items()},
        "shard_recordings": options.shard_recordings,
        "pocketsphinx": pocketsphinx_version(),
    }
    try:
        if shared and listing.exists(folder) and (folder / "plan.json").exists():
            plan = Plan.load(folder / "plan.json")
            plan.check_options(deciding, folder)
            return plan
        make = functools.partial(
            make_plan,
            options=deciding,
            shard_utterances=options.shard_recordings,
            valid_utterances=0.0,
            valid_speakers=0.0,
            seed=0,
        )
        return shared_plan.begin(folder, sources.list_recordings(options.source, layout), make, progress=progress)
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error.strerror}") from None


def _run(options: Transcribe, folder: pathlib.Path, plan: Plan, shards: range, progress: bool) -> None:
    """Does those of the shards that are missing."""

    def do(worker: Worker, shard: int) -> float:
        recordings = listing.shard_recordings(folder, shard)
        job = PiecesJob(options.out, shard, plan.n_shards, recordings, options.recogniser, options.segmentation)
        return run_isolated(worker, job, transcribe_shard, options.hang_seconds)

    missing = [shard for shard in shards if not part_path(folder, shard, plan.n_shards).exists()]
    hours, start = 0.0, time.monotonic()
    with tqdm.tqdm(total=len(missing), desc="transcribe", unit=" shards", disable=not progress) as bar:
        for seconds in map_unordered(do, missing, options.processes):
            hours += seconds / 3600
            bar.set_postfix_str(f"{hours / (time.monotonic() - start) * 3600:.1f} audio hours/hour", refresh=False)
            bar.update()


def _finish(folder: pathlib.Path, n_shards: int) -> None:
    """Joins the shards' results; the manifest last, since it says that everything is there.

    Raises:
      WorkError: nothing was heard; rejected.jsonl is written all the same.
    """

    def join(name: str, kind: str) -> None:
        count = 0
        with whole_text(folder / name) as file:
            for shard in range(n_shards):
                lines = json.loads(part_path(folder, shard, n_shards).read_text(encoding="utf-8"))[kind]
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                count += len(lines)
            if name == MANIFEST and not count:
                raise WorkError(f"nothing was heard in any recording; see {folder / REJECTED}")

    join(REJECTED, "rejected")
    join(MANIFEST, "entries")
