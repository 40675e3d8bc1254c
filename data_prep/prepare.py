"""The verb `valle prepare`: a corpus of audio and text becomes a dataset of codes and phonemes."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import soundfile
import soxr

from data_prep import engine, listing, shared_plan, sources
from data_prep.files import write_json
from data_prep.filters import Filters
from data_prep.jobs import ShardJob
from data_prep.plan import GivenSplits, Plan, load_speaker_splits, make_plan
from data_prep.shards import REPORTS, STAGING
from data_prep.summary import Summary
from valle_jax.codec import CodecInfo, get_codec
from valle_jax.errors import UserError, WorkError
from valle_jax.hearing.recognition import pocketsphinx_version
from valle_jax.parallel.job_array import which_task
from valle_jax.text import phonemizer
from valle_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Make a dataset of codes and phonemes from audio files and their transcripts.

    Killed, it goes on where it was when run again. What cannot be used is listed in rejected.jsonl.

    Example: valle prepare --source LibriSpeech/train-clean-100 --out datasets/train-clean-100
    """

    source: str
    """The corpus: a folder, manifest or archive, local or by URL (gs://, s3://), or tfds:NAME or tfds:DIRECTORY."""
    out: str
    """Dataset directory to write."""
    layout: str = "auto"
    """ljspeech, vctk, common_voice, jsonl, lhotse, archives, librispeech, libritts, librilight or tfds, as docs/data.md
    describes them; auto: recognised."""
    codec: str = "mel_rvq"
    """mel_rvq (embedded) or encodec_24khz."""
    codec_weights: str | None = None
    """File with the codec's weights, where they are not the ones it finds itself."""
    language: str = "en-us"
    """Language of the texts that name none, as espeak-ng names it."""
    vocabulary: str = "default"
    """Symbol table: default (the shipped IPA table), corpus (built from this corpus), or a JSON file."""
    processes: int = 0
    """Worker processes; 0: one per CPU. The dataset does not depend on it."""
    shard_utterances: int = 256
    """Most recordings per shard; a kill loses at most the shards in work."""
    min_seconds: float = 0.5
    """Shorter recordings are rejected."""
    max_seconds: float = 40.0
    """Longer recordings are rejected."""
    valid_utterances: float = 0.02
    """Share of utterances held out as split valid_utterance."""
    valid_speakers: float = 0.0
    """Share of speakers held out as split valid_speaker."""
    test_speakers: float = 0.0
    """Share of speakers held out as split test."""
    corpus_splits: bool = True
    """LibriSpeech's and LibriTTS's dev subsets are split valid_speaker and their test subsets test."""
    split_file: str | None = None
    """Text file of lines SPEAKER SPLIT; the other speakers' splits are drawn."""
    seed: int = 0
    """Of the draw of the held-out utterances and speakers."""
    align: bool = False
    """Write down at which frame each phoneme starts, for training on crops: from the manifest's `words`, else by forced
    alignment (English only, the extra `eval`)."""
    filters: Filters = Filters()
    """What else is rejected."""
    shard_index: int | None = None
    """Do this task's part of the shards, of --num-shards tasks that run this command; from 0. Default: what SLURM's job
    arrays (SLURM_ARRAY_TASK_ID) and Kubernetes' indexed jobs (JOB_COMPLETION_INDEX) say."""
    num_shards: int | None = None
    """How many tasks run this command; whichever ends last finishes the dataset. Default: SLURM_ARRAY_TASK_COUNT."""
    plan_only: bool = False
    """Only plan, so that many tasks do not all list the source."""
    finish: bool = False
    """Only finish a dataset whose shards are all complete."""
    runner: str | None = None
    """Runner of Apache Beam, such as DirectRunner, DataflowRunner, FlinkRunner; default: processes of this machine."""
    runner_options: tuple[str, ...] = ()
    """Options of the runner, as name=value."""
    hang_seconds: float = 300.0
    """A worker without progress for so long hangs; the recording that it is at is rejected in the end."""

    def __post_init__(self):
        if self.shard_utterances <= 0 or self.processes < 0:
            raise UserError("--shard-utterances must be positive and --processes not negative")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise UserError(f"--min-seconds {self.min_seconds:g} must be below --max-seconds {self.max_seconds:g}")
        if not all(0 <= share < 1 for share in (self.valid_utterances, self.valid_speakers, self.test_speakers)):
            raise UserError("--valid-utterances, --valid-speakers and --test-speakers are shares in [0, 1)")
        if self.hang_seconds <= 0:
            raise UserError("--hang-seconds must be positive")

    def run(self) -> None:
        """Prepares and prints what came out."""
        summary = prepare(self)
        if summary is not None:
            print(summary)
        elif self.plan_only:
            print(f"{self.out} is planned")
        else:
            print(f"{self.out}: this task's shards are complete, others' are not yet; the last task finishes")


def prepare(options: Prepare, progress: bool = True) -> Summary | None:
    """Prepares a corpus, or a task's part of it; of a dataset that was begun, only the shards that are missing.

    Args:
      options: as on the command line.
      progress: whether to show a progress bar on stderr.

    Returns:
      What the dataset came to; None where it is not complete, because others are at work or it was only planned.

    Raises:
      UserError: wrong arguments, or `options.out` was begun with other options or from another source.
      WorkError: nothing was usable, or a shard failed again and again.
    """
    index, count = which_task(options.shard_index, options.num_shards)
    if options.language not in phonemizer.languages():
        phonemizer.Phonemizer(options.language)  # raises, with the languages near to it
    codec = get_codec(options.codec, options.codec_weights, implementation="torch").info
    vocabulary = _chosen_vocabulary(options.vocabulary)
    layout = sources.detect_layout(options.source) if options.layout == "auto" else options.layout
    deciding = _deciding(options, layout, codec, vocabulary)
    folder = pathlib.Path(options.out)
    plan = _begin(options, layout, deciding, folder, shared=count > 1, progress=progress)
    try:
        work = engine.Work(_template(options, plan, vocabulary), plan.splitter, options.hang_seconds)
        if vocabulary is None:
            vocabulary = _corpus_vocabulary(work, options.processes, progress)
            work = engine.Work(_template(options, plan, vocabulary), plan.splitter, options.hang_seconds)
        if options.plan_only:
            return None
        if not options.finish and (mine := work.missing(range(index, plan.n_shards, count))):
            if options.runner:
                _beam().run_beam(work, mine, options.runner, options.runner_options)
            else:
                engine.run_local(work, mine, codec, options.processes, progress)
        if missing := work.missing(range(plan.n_shards)):
            if options.finish:
                raise WorkError(
                    f"{len(missing)} of {plan.n_shards} shards of {folder} are missing, the first is {missing[0]}"
                )
            return None
        engine.finish_dataset(work, codec, vocabulary, deciding, options.processes, progress)
    except OSError as error:
        # A task that does what another one does finds the listing gone where that one has finished.
        if not (isinstance(error, FileNotFoundError) and (folder / "dataset.json").exists()):
            raise WorkError(f"cannot write {options.out}: {error.strerror or error}") from None
    return Summary.of(folder)


def _chosen_vocabulary(choice: str) -> Vocabulary | None:
    """The vocabulary that --vocabulary names; None for the one that is built from the corpus."""
    if choice == "corpus":
        return None
    return Vocabulary.default() if choice == "default" else Vocabulary.load(choice)


_UNDECIDING = (
    "source",
    "out",
    "processes",
    "shard_index",
    "num_shards",
    "plan_only",
    "finish",
    "runner",
    "runner_options",
)


def _deciding(options: Prepare, layout: str, codec: CodecInfo, vocabulary: Vocabulary | None) -> dict:
    """The options that decide the bytes of the dataset, as the plan and dataset.json record them."""
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for name in (*_UNDECIDING, "hang_seconds", "filters"):
        del chosen[name]
    digest = hashlib.sha256("".join(vocabulary.symbols).encode()).hexdigest()[:8] if vocabulary else ""
    given = load_speaker_splits(options.split_file) if options.split_file else {}
    chosen |= {f"filters.{name}": value for name, value in dataclasses.asdict(options.filters).items()}
    if options.align or options.filters.min_alignment is not None:
        chosen["pocketsphinx"] = pocketsphinx_version()
    else:
        del chosen["align"], chosen["filters.min_alignment"]  # as it was before there were such datasets
    return {
        **chosen,
        **phonemizer.versions(),
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "layout": layout,
        "codec_weights": codec.weight_hash,
        "vocabulary": f"{vocabulary.version} {digest}" if vocabulary else "corpus",
        "split_file": hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:8] if given else "",
    }


def _begin(
    options: Prepare, layout: str, deciding: dict, folder: pathlib.Path, *, shared: bool, progress: bool
) -> Plan:
    """Makes the folder with its plan and listing, or checks that the plan that is there is the same.

    Where tasks share the work (`shared`), those that find a plan with its listing do not list the source again.
    """
    path = folder / "plan.json"
    try:
        if path.exists() and (options.finish or (shared and listing.exists(folder))):
            plan = Plan.load(path)
            plan.check_options(deciding, folder)
            return plan
        given = load_speaker_splits(options.split_file) if options.split_file else {}
        plan = shared_plan.begin(
            folder,
            sources.list_recordings(options.source, layout),
            lambda recordings: make_plan(
                recordings,
                deciding,
                shard_utterances=options.shard_utterances,
                valid_utterances=options.valid_utterances,
                valid_speakers=options.valid_speakers,
                test_speakers=options.test_speakers,
                given=GivenSplits(given, options.corpus_splits),
                seed=options.seed,
            ),
            progress=progress,
        )
        for name in (REPORTS, STAGING) if options.filters.need_the_corpus else (REPORTS,):
            (folder / name).mkdir(exist_ok=True)
        return plan
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error.strerror}") from None


def _template(options: Prepare, plan: Plan, vocabulary: Vocabulary | None) -> ShardJob:
    """The job of any shard, but for its recordings."""
    return ShardJob(
        folder=options.out,
        shard=0,
        n_shards=plan.n_shards,
        recordings=(),
        splits=(),
        codec=options.codec,
        codec_weights=options.codec_weights,
        language=options.language,
        vocabulary=vocabulary,
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        filters=options.filters,
        align=options.align,
    )


def _corpus_vocabulary(work: engine.Work, processes: int, progress: bool) -> Vocabulary:
    """The vocabulary of the whole corpus, kept in vocabulary.json so that a resumed run need not look again."""
    path = pathlib.Path(work.template.folder) / "vocabulary.json"
    if path.exists():
        return Vocabulary.load(path)
    vocabulary = engine.vocabulary_of_all(work, processes, progress)
    write_json(path, vocabulary.to_json())
    return vocabulary


def _beam():
    try:
        from data_prep import beam
    except ImportError as error:
        raise UserError(
            f"--runner needs Apache Beam (no module {error.name!r}): pip install 'valle-jax[prep]'"
        ) from None
    return beam
