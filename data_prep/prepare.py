"""The verb `valle prepare`: a corpus of audio and text becomes a dataset of codes and phonemes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import time
from collections.abc import Iterator

import tqdm

from data_prep import sources
from data_prep.plan import Plan, make_plan, write_json
from data_prep.shards import REPORTS, ShardJob, ShardReport, corpus_vocabulary, prepare_shard
from data_prep.sources import Recording
from data_prep.summary import Summary, finish
from data_prep.workers import map_unordered
from valle_jax.codec import CodecInfo, get_codec
from valle_jax.errors import UserError, WorkError
from valle_jax.text import phonemizer
from valle_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Make a dataset of codes and phonemes from audio files and their transcripts.

    Killed, it goes on where it was when run again. What cannot be used is listed in rejected.jsonl.

    Example: valle prepare --source LibriSpeech/train-clean-100 --out datasets/train-clean-100
    """

    source: str
    """The corpus: a folder, or a .jsonl manifest."""
    out: str
    """Dataset directory to write."""
    layout: str = "auto"
    """librispeech, ljspeech or jsonl (fields audio, text, speaker; optional id, language, split); auto: recognised."""
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
    seed: int = 0
    """Of the draw of the held-out utterances and speakers."""

    def __post_init__(self):
        if self.shard_utterances <= 0 or self.processes < 0:
            raise UserError("--shard-utterances must be positive and --processes not negative")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise UserError(f"--min-seconds {self.min_seconds:g} must be below --max-seconds {self.max_seconds:g}")
        if not (0 <= self.valid_utterances < 1 and 0 <= self.valid_speakers < 1):
            raise UserError("--valid-utterances and --valid-speakers are shares in [0, 1)")

    def run(self) -> None:
        """Prepares and prints what came out."""
        print(prepare(self))


def prepare(options: Prepare, progress: bool = True) -> Summary:
    """Prepares a corpus; of a dataset that was begun, only the shards that are missing.

    Args:
      options: as on the command line.
      progress: whether to show a progress bar on stderr.

    Raises:
      UserError: wrong arguments, or `options.out` was begun with other options or from another source.
      WorkError: nothing was usable, or a worker process died.
    """
    if options.language not in phonemizer.languages():
        phonemizer.Phonemizer(options.language)  # raises, with the languages near to it
    codec = get_codec(options.codec, options.codec_weights, implementation="torch").info
    vocabulary = _chosen_vocabulary(options.vocabulary)
    layout = sources.detect_layout(options.source) if options.layout == "auto" else options.layout
    listing = sources.list_recordings(options.source, layout)
    plan = make_plan(
        tqdm.tqdm(listing, "list", unit=" recordings", leave=False, disable=not progress),
        _deciding(options, layout, codec, vocabulary),
        shard_utterances=options.shard_utterances,
        valid_utterances=options.valid_utterances,
        valid_speakers=options.valid_speakers,
        seed=options.seed,
    )
    folder = pathlib.Path(options.out)
    _begin(folder, plan)
    try:
        if vocabulary is None:
            vocabulary = _corpus_vocabulary(options, layout, plan, progress)
        _write_shards(options, layout, plan, vocabulary, codec, progress)
        finish(folder, plan.n_shards, codec, vocabulary)
    except OSError as error:
        raise WorkError(f"cannot write {options.out}: {error.strerror or error}") from None
    return Summary.of(folder)


def _chosen_vocabulary(choice: str) -> Vocabulary | None:
    """The vocabulary that --vocabulary names; None for the one that is built from the corpus."""
    if choice == "corpus":
        return None
    return Vocabulary.default() if choice == "default" else Vocabulary.load(choice)


def _deciding(options: Prepare, layout: str, codec: CodecInfo, vocabulary: Vocabulary | None) -> dict:
    """The options that decide the bytes of the dataset, as the plan records them."""
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for name in ("source", "out", "processes"):
        del chosen[name]
    digest = hashlib.sha256("".join(vocabulary.symbols).encode()).hexdigest()[:8] if vocabulary else ""
    return {
        **chosen,
        **phonemizer.versions(),
        "layout": layout,
        "codec_weights": codec.weight_hash,
        "vocabulary": f"{vocabulary.version} {digest}" if vocabulary else "corpus",
    }


def _begin(folder: pathlib.Path, plan: Plan) -> None:
    """Makes the folder and its plan.json, or checks that the one that is there is the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "plan.json").exists():
            plan.check_resumable(folder / "plan.json")
        elif {path.name for path in folder.iterdir()} - {"plan.json.tmp"}:
            raise UserError(f"{folder} is not empty and holds no plan.json of an earlier run; choose another --out")
        else:
            plan.save(folder / "plan.json")
        (folder / REPORTS).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --out {folder}: {error.strerror}") from None


def _shard_recordings(options: Prepare, layout: str, plan: Plan) -> Iterator[tuple[Recording, ...]]:
    """The recordings of each shard, listed as they are needed."""
    recordings = sources.list_recordings(options.source, layout)
    for size in plan.shard_sizes():
        yield tuple(itertools.islice(recordings, size))


def _corpus_vocabulary(options: Prepare, layout: str, plan: Plan, progress: bool) -> Vocabulary:
    """The vocabulary of the whole corpus, kept in vocabulary.json so that a resumed run need not look again."""
    path = pathlib.Path(options.out) / "vocabulary.json"
    if path.exists():
        return Vocabulary.load(path)
    look = functools.partial(corpus_vocabulary, language=options.language)
    parts = map_unordered(look, _shard_recordings(options, layout, plan), options.processes)
    bar = tqdm.tqdm(parts, "symbols", plan.n_shards, unit=" shards", disable=not progress)
    vocabulary = Vocabulary.from_corpus(symbol for part in bar for symbol in part.symbols)
    write_json(path, vocabulary.to_json())
    return vocabulary


def _write_shards(
    options: Prepare, layout: str, plan: Plan, vocabulary: Vocabulary, codec: CodecInfo, progress: bool
) -> None:
    """Prepares every shard that is not complete."""
    missing = {s for s in range(plan.n_shards) if ShardReport.of(options.out, s, plan.n_shards) is None}
    jobs = (
        ShardJob(
            folder=options.out,
            shard=shard,
            n_shards=plan.n_shards,
            recordings=recordings,
            splits=tuple(plan.splitter.split(recording) for recording in recordings),
            codec=options.codec,
            codec_weights=options.codec_weights,
            language=options.language,
            vocabulary=vocabulary,
            min_seconds=options.min_seconds,
            max_seconds=options.max_seconds,
        )
        for shard, recordings in enumerate(_shard_recordings(options, layout, plan))
        if shard in missing
    )
    sizes = plan.shard_sizes()
    done = sum(size for shard, size in enumerate(sizes) if shard not in missing)
    hours, start = 0.0, time.monotonic()
    with tqdm.tqdm(
        total=plan.n_recordings, initial=done, desc="prepare", unit=" recordings", disable=not progress
    ) as bar:
        for report in map_unordered(prepare_shard, jobs, options.processes):
            hours += report.frames.total() / codec.frames_per_second / 3600
            bar.set_postfix_str(f"{hours / (time.monotonic() - start) * 3600:.0f} audio hours/hour", refresh=False)
            bar.update(report.utterances.total() + len(report.rejected))
