"""From utterances to packed rows (P1, sections 4.2.1 and 4.2.2): what `valle_jax.data.batch` describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from valle_jax.config import Config
from valle_jax.data import draws
from valle_jax.data.batch import (
    KIND_ACOUSTIC,
    KIND_PROMPT,
    KIND_STAGE,
    KIND_TEXT,
    NO_TARGET,
    Batch,
    mark_tokens,
    text_positions,
)
from valle_jax.data.dataset import Dataset
from valle_jax.data.packing import prompt_frames, separator
from valle_jax.data.schema import Utterance
from valle_jax.text.vocabulary import EOS_ID


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One segment of a row.

    Attributes:
      text: int32 [S], phonemes and the end of text.
      text_position: int32 [S].
      prompt: int32 [P, Q], frames that all codebooks are shown of; none for the AR.
      frames: int32 [T, Q], frames to predict; for the AR whole groups.
    """

    text: np.ndarray
    text_position: np.ndarray
    prompt: np.ndarray
    frames: np.ndarray


class RowWriter:
    """Writes examples of one dataset into the rows of a batch."""

    def __init__(self, dataset: Dataset, config: Config):
        self._model = config.model
        self._is_ar = config.model.stage == "ar"
        self.codebooks = dataset.info.codec.codebooks
        self._end_of_speech = dataset.info.codec.codebook_size
        self._group = config.model.codes_per_step
        self._bos = int(config.model.prepend_bos)
        self._separator = separator(dataset.info.vocabulary)
        self._prompt = config.data.nar_prompt
        self._prompt_frames = prompt_frames(dataset, config)

    def example(self, utterances: Sequence[Utterance], seed: int, epoch: int, first_record: int) -> Example:
        """Joins utterances of a speaker; for the NAR the prompt is drawn by (seed, epoch, first record).

        Where a group has several codes, the first frames are cut so that groups divide the rest (P2, section 3.2).
        """
        *others, last = [utterance.phonemes for utterance in utterances]
        phonemes = [np.concatenate([other, self._separator]) for other in others] + [np.append(last, EOS_ID)]
        text = np.concatenate(phonemes).astype(np.int32)
        frames = np.concatenate([utterance.codes for utterance in utterances]).astype(np.int32)
        cut = len(frames) % self._group
        frames, n_frames = frames[cut:], [len(utterance.codes) for utterance in utterances]
        n_frames[0] = max(0, n_frames[0] - cut)
        position = text_positions([len(p) for p in phonemes], n_frames, self._model)
        start, count, first_target = self._draw_prompt(len(frames), seed, epoch, first_record)
        return Example(text, position, frames[start : start + count], frames[first_target:])

    def _draw_prompt(self, n_frames: int, seed: int, epoch: int, first_record: int) -> tuple[int, int, int]:
        """Where the prompt starts, its frames, and the first frame to predict."""
        longest = min(self._prompt_frames, n_frames // 2)
        if self._is_ar or self._prompt == "none":
            return 0, 0, 0
        drawn = draws.key(seed, epoch, "prompt")
        if self._prompt == "prefix":
            count = int(draws.below(drawn, first_record, longest + 1))
            return 0, count, count
        return int(draws.below(drawn, first_record, n_frames - longest + 1)), longest, 0

    def write(self, batch: Batch, row: int, examples: Sequence[Example]) -> None:
        """Packs examples into a row of a batch; the NAR's `stage` of the row must be set."""
        end = 0
        for segment, example in enumerate(examples, start=1):
            start, text_end = end, end + len(example.text)
            if self._is_ar:
                end = self._write_ar(batch, row, text_end, example)
            else:
                end = self._write_nar(batch, row, text_end, example)
            batch["token"][row].reshape(-1, self._group)[start:text_end, 0] = example.text
            batch["kind"][row, start:text_end] = KIND_TEXT
            batch["segment"][row, start:end] = segment
            batch["position"][row, start:text_end] = example.text_position
            batch["position"][row, text_end:end] = self._group * np.arange(end - text_end)

    def _write_ar(self, batch: Batch, row: int, start: int, example: Example) -> int:
        """Writes the acoustic tokens behind the text, and returns their end; the last of the text predicts too."""
        codes = example.frames[:, 0].reshape(-1, self._group)
        bos = np.full((self._bos, self._group), self._end_of_speech + 1)
        end = start + len(bos) + len(codes)
        token, target = (batch[name][row].reshape(-1, self._group) for name in ("token", "target"))  # views
        token[start:end] = np.concatenate([bos, codes])
        batch["kind"][row, start:end] = KIND_ACOUSTIC
        target[end - len(codes) - 1 : end - 1] = codes
        target[end - 1, 0] = self._end_of_speech
        return end

    def _write_nar(self, batch: Batch, row: int, start: int, example: Example) -> int:
        """Writes the prompt, the frames and perhaps the stage behind the text, and returns their end."""
        first_target = start + len(example.prompt)
        end = first_target + len(example.frames)
        batch["kind"][row, start:first_target] = KIND_PROMPT
        batch["kind"][row, first_target:end] = KIND_ACOUSTIC
        batch["codes"][row, start:first_target] = example.prompt
        batch["codes"][row, first_target:end] = example.frames
        batch["target"][row, first_target:end] = example.frames[:, batch["stage"][row]]
        whole = end + mark_tokens(self._model)
        batch["kind"][row, end:whole] = KIND_STAGE
        return whole


def empty_batch(rows: int, config: Config, codebooks: int) -> Batch:
    """A batch that is all padding; a NAR batch is of stage 1."""
    shape = (rows, config.data.row_length)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in ("token", "kind", "segment", "position")}
    batch["token"] = np.zeros((rows, config.data.row_length * config.model.codes_per_step), np.int32)
    batch["target"] = np.full_like(batch["token"], NO_TARGET)
    if config.model.stage == "nar":
        batch["codes"] = np.zeros((*shape, codebooks), np.int32)
        batch["stage"] = np.ones(rows, np.int32)
    return batch
