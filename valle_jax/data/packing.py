"""The packing plan of an epoch: which utterances stand in which row.

A plan is a pure function of the index and of `Packing`. Blocks of contiguous records are permuted, records are shuffled
inside their block, and same-speaker records of a block may be joined to one training example. Examples are packed in
windows, the longest first, each into the fullest open row that has room; where none has, a row is opened, and of more
than so many open ones the fullest is closed. The rows are shuffled last.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np

from valle_jax.config import Config
from valle_jax.data import draws
from valle_jax.data.batch import mark_tokens
from valle_jax.data.cropping import Crops
from valle_jax.data.dataset import Dataset, Index
from valle_jax.data.schema import SPLITS
from valle_jax.errors import UserError
from valle_jax.text.vocabulary import UNK_ID, Vocabulary

_VERSION = 1  # of the algorithm; part of the name under which a plan is cached
_WINDOW = 1024  # examples packed longest first; larger ones fill no better, unsorted ones 2 % worse
_OPEN_ROWS = 1024  # fewer than a window's long examples would be closed before the short ones come
_CHUNK_RECORDS = 1 << 16  # records ordered at a time, which bounds the memory that planning takes
_ROW_BITS = 40  # an open row is one integer: free tokens above, row number below, so that a sorted list orders by room


@dataclasses.dataclass(frozen=True)
class Packing:
    """Everything that decides a plan, besides the index.

    Attributes:
      split: one of SPLITS.
      seed, epoch: of all draws.
      row_length: tokens per row.
      join_utterances: at most so many utterances of a speaker make an example.
      block_size: contiguous records that move together.
      example_tokens: of an example besides its phonemes and frames: end of text, begin of audio or stage.
      separator_tokens: between the phonemes of two joined utterances.
      segment_frames: length of an acoustic prompt that is given additionally; at most half of the frames are.
      share: of the split's utterances; which they are depends on nothing else.
      frames_per_token: the AR's group size; frames that fill no group are left out.
      crop_frames: between which lengths crops are drawn; (0, 0): utterances stay whole.
    """

    split: str
    seed: int
    epoch: int
    row_length: int
    join_utterances: int
    block_size: int
    example_tokens: int
    separator_tokens: int
    segment_frames: int
    share: float = 1.0
    frames_per_token: int = 1
    crop_frames: tuple[int, int] = (0, 0)

    @property
    def crops(self) -> Crops:
        """How utterances are cropped."""
        return Crops(self.seed, self.epoch, *self.crop_frames, self.frames_per_token)

    @classmethod
    def of(cls, dataset: Dataset, config: Config, split: str, seed: int, epoch: int) -> Packing:
        """The packing that a configuration asks for; UserError where it asks for crops of what is not aligned."""
        data, rate = config.data, dataset.info.codec.frames_per_second
        if data.crop_max_seconds and not dataset.info.aligned:
            raise UserError(
                f"data.crop_max_seconds={data.crop_max_seconds:g} needs to know where phonemes are, and {dataset.path} "
                "does not say; prepare it with --align, or set data.crop_min_seconds and data.crop_max_seconds to 0"
            )
        is_ar = config.model.stage == "ar"
        return cls(
            split=split,
            seed=seed,
            epoch=epoch,
            row_length=config.data.row_length,
            join_utterances=config.data.join_utterances,
            block_size=config.data.block_size,
            example_tokens=1 + mark_tokens(config.model),
            separator_tokens=len(separator(dataset.info.vocabulary)),
            segment_frames=0 if is_ar or config.data.nar_prompt != "segment" else prompt_frames(dataset, config),
            share=config.data.share if split == "train" else 1.0,
            frames_per_token=config.model.codes_per_step,
            crop_frames=(round(data.crop_min_seconds * rate), round(data.crop_max_seconds * rate)),
        )


def prompt_frames(dataset: Dataset, config: Config) -> int:
    """The longest acoustic prompt of the NAR in training."""
    return round(config.data.nar_prompt_seconds * dataset.info.codec.frames_per_second)


def separator(vocabulary: Vocabulary) -> np.ndarray:
    """What stands between the phonemes of joined utterances: a space, int32 [1], or nothing, int32 [0]."""
    space = vocabulary.encode(" ")
    return space[space != UNK_ID]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The rows of one epoch.

    Attributes:
      bounds: int32 [rows, 2], where each row's utterances start and end in `records`.
      records: int32, numbers of utterances; one that is joined to the one before it stands as its bitwise complement.
      row_length: tokens per row.
      n_utterances: in rows.
      n_skipped: utterances too long for a row.
      n_tokens: in rows, padding not counted.
      n_frames: acoustic frames in rows; of crops, as in `n_tokens`, the most that they may have.
    """

    bounds: np.ndarray
    records: np.ndarray
    row_length: int
    n_utterances: int
    n_skipped: int
    n_tokens: int
    n_frames: int

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def fill(self) -> float:
        """Share of the rows' tokens that is not padding."""
        return self.n_tokens / max(1, len(self) * self.row_length)

    def row(self, number: int) -> list[list[int]]:
        """The examples of a row, each the numbers of its utterances."""
        start, end = self.bounds[number]
        examples: list[list[int]] = []
        for record in self.records[start:end].tolist():
            if record < 0:
                examples[-1].append(~record)
            else:
                examples.append([record])
        return examples


def make_plan(index: Index, packing: Packing) -> Plan:
    """Computes a plan in memory: 7 bytes per utterance, about 1.5 µs of one core each."""
    open_rows: list[int] = []
    members: dict[int, list[int]] = {}
    n_rows = n_skipped = n_tokens = n_frames = 0
    capacity = packing.row_length
    # The parts of a plan are as long as the index, so each is made once and in place.
    records = np.empty(np.count_nonzero(index.split == SPLITS.index(packing.split)), np.int32)
    n_records = 0
    sizes = []
    for chunk, starts, lengths, frames in _examples(index, packing):
        n_skipped += int(np.diff(starts, append=len(chunk))[lengths > capacity].sum())
        n_tokens += int(lengths[lengths <= capacity].sum())
        n_frames += int(frames[lengths <= capacity].sum())
        chunk_records = chunk.tolist()
        start_list = [*starts.tolist(), len(chunk)]
        closed: list[int] = []
        closed_sizes: list[int] = []
        order = np.lexsort((-lengths, np.arange(len(lengths)) // _WINDOW))
        for example, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
            if length > capacity:
                continue
            fitting = bisect.bisect_left(open_rows, length << _ROW_BITS)
            if fitting < len(open_rows):
                row = open_rows.pop(fitting)
            else:
                if len(open_rows) == _OPEN_ROWS:
                    done = members.pop(open_rows.pop(0) & ((1 << _ROW_BITS) - 1))
                    closed += done
                    closed_sizes.append(len(done))
                row = (capacity << _ROW_BITS) | n_rows
                members[n_rows] = []
                n_rows += 1
            members[row & ((1 << _ROW_BITS) - 1)] += chunk_records[start_list[example] : start_list[example + 1]]
            bisect.insort(open_rows, row - (length << _ROW_BITS))
        records[n_records : n_records + len(closed)] = closed
        n_records += len(closed)
        sizes.append(np.array(closed_sizes, np.int32))
    for rest in members.values():
        records[n_records : n_records + len(rest)] = rest
        n_records += len(rest)
    sizes.append(np.array([len(rest) for rest in members.values()], np.int32))

    ends = np.concatenate(sizes)
    sizes.clear()
    np.cumsum(ends, out=ends)
    order = draws.permutation(draws.key(packing.seed, packing.epoch, "rows"), n_rows)
    bounds = np.empty((n_rows, 2), np.int32)
    bounds[:, 1] = ends[order]
    order -= 1
    bounds[:, 0] = ends[order]
    bounds[order < 0, 0] = 0
    return Plan(bounds, records[:n_records], capacity, n_records, n_skipped, n_tokens, n_frames)


def load_plan(dataset: Dataset, packing: Packing, plan_dir: str | os.PathLike | None) -> Plan:
    """The plan of a dataset: memory-mapped from `plan_dir`, where it is put if it is not there; None: in memory."""
    if plan_dir is None:
        return make_plan(dataset.index, packing)
    what = json.dumps([_VERSION, dataset.fingerprint, dataclasses.asdict(packing)])
    folder = pathlib.Path(plan_dir) / hashlib.sha256(what.encode()).hexdigest()[:24]
    if not folder.exists():
        with _lock(pathlib.Path(plan_dir)):  # so that of many reader processes only one computes
            if not folder.exists():
                _save(make_plan(dataset.index, packing), folder)
    facts = json.loads((folder / "plan.json").read_text())
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("bounds", "records")}
    return Plan(**arrays, **facts)


def _save(plan: Plan, folder: pathlib.Path) -> None:
    """Writes a plan at once or not at all; another process, which writes the same, may win."""
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix="plan-"))
    facts = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    for name in ("bounds", "records"):
        np.save(temporary / f"{name}.npy", facts.pop(name))
    (temporary / "plan.json").write_text(json.dumps(facts))
    try:
        os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.exists():
            raise


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        # A file system without locks costs double work, nothing more: plans are renamed into place.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _examples(index: Index, packing: Packing) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The examples of an epoch in the order in which they are packed, a bounded number at a time.

    Yields:
      records int32 [n], the joined ones complemented; of each example the first record's place in it, its tokens and
      its frames, int64 [examples].
    """
    seed, epoch, size = packing.seed, packing.epoch, packing.block_size
    blocks = draws.permutation(draws.key(seed, epoch, "blocks"), -(-len(index) // size)).astype(np.int64)
    per_chunk = max(1, _CHUNK_RECORDS // size)
    for chunk_start in range(0, len(blocks), per_chunk):
        chunk = blocks[chunk_start : chunk_start + per_chunk]
        records = (chunk[:, None] * size + np.arange(size)).ravel()
        rank = np.repeat(np.arange(len(chunk)), size)  # of the block in the chunk
        present = records < len(index)
        present[present] = index.split[records[present]] == SPLITS.index(packing.split)
        if packing.share < 1:
            present[present] = draws.bits(draws.key("share"), records[present]) < packing.share * 2.0**64
        records, rank = records[present], rank[present]
        order = np.lexsort((draws.bits(draws.key(seed, epoch, "records"), records), rank))
        records, rank = records[order], rank[order]
        if packing.join_utterances == 1:
            starts = np.arange(len(records))
        else:
            by_speaker = np.lexsort((index.speaker[records], rank))  # stable: a speaker's records stay shuffled
            records, rank = records[by_speaker], rank[by_speaker]
            starts = _joined(index, packing, records, rank)
            # Examples are shuffled inside their block, so that a speaker's do not follow one another.
            first = records[starts]
            shuffled = np.lexsort((draws.bits(draws.key(seed, epoch, "examples"), first), rank[starts]))
            sizes = np.diff(starts, append=len(records))[shuffled]
            new_starts = np.cumsum(sizes) - sizes
            records = records[np.repeat(starts[shuffled] - new_starts, sizes) + np.arange(len(records))]
            starts = new_starts
        if len(records):
            lengths, frames = _lengths(index, packing, records, starts)
            joined = np.ones(len(records), bool)
            joined[starts] = False
            yield np.where(joined, ~records, records).astype(np.int32), starts, lengths, frames


def _joined(index: Index, packing: Packing, records: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Where examples start in records [n] that are sorted by block and speaker: 1 to `join_utterances` of a speaker."""
    speaker = index.speaker[records]
    new_run = np.r_[True, (speaker[1:] != speaker[:-1]) | (rank[1:] != rank[:-1])][: len(records)]
    run_starts = np.flatnonzero(new_run)
    run = np.cumsum(new_run) - 1
    run_ends = np.r_[run_starts[1:], len(records)]
    drawn = draws.below(draws.key(packing.seed, packing.epoch, "join"), records, packing.join_utterances) + 1
    # The q-th draw of a run is the size of its q-th example, so examples start where the draws before sum up to.
    total = np.cumsum(drawn)
    start = run_starts[run] + total - (total - drawn)[run_starts[run]]
    is_start = new_run.copy()
    is_start[start[start < run_ends[run]]] = True
    while True:  # an example too long for a row is halved until it fits or is one utterance
        starts = np.flatnonzero(is_start)
        sizes = np.diff(starts, append=len(records))
        lengths, _ = _lengths(index, packing, records, starts)
        too_long = (lengths > packing.row_length) & (sizes > 1)
        if not too_long.any():
            return starts
        is_start[starts[too_long] + sizes[too_long] // 2] = True


def _lengths(index: Index, packing: Packing, records: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and frames, int64 [examples], of the examples that start at `starts` in records [n]."""
    if not len(starts):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    sizes = np.diff(starts, append=len(records))
    lengths = packing.crops.lengths(records, index.n_phonemes[records], index.n_frames[records])
    phonemes, frames = (np.add.reduceat(length, starts) for length in lengths)
    steps = frames // packing.frames_per_token
    prompt = np.minimum(packing.segment_frames, frames // 2)
    tokens = phonemes + (sizes - 1) * packing.separator_tokens + packing.example_tokens + prompt + steps
    return tokens, steps * packing.frames_per_token
