"""Random crops of utterances whose phonemes are aligned, as P1 trains on (section 5.1: 10 to 20 s).

How long a crop is at most is drawn by (seed, epoch, utterance) from the index alone, so that rows can be planned;
where it lies is decided when the record is read, by its alignment.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from valle_jax.data import draws
from valle_jax.data.schema import Utterance


@dataclasses.dataclass(frozen=True)
class Crops:
    """Everything that decides the crops of an epoch, besides the utterances.

    Attributes:
      seed, epoch: of all draws.
      shortest, longest: frames, between which the length of a crop is drawn; 0, 0: utterances stay whole.
      frames_per_token: of the AR's groups.
    """

    seed: int
    epoch: int
    shortest: int
    longest: int
    frames_per_token: int = 1

    def lengths(
        self, records: np.ndarray, n_phonemes: np.ndarray, n_frames: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Phonemes and frames, int64 [n] each, that crops of utterances have at most; all have the shape [n].

        An utterance that is not longer than what is drawn stays whole. The phonemes are its share of them.
        """
        phonemes, frames = n_phonemes.astype(np.int64), n_frames.astype(np.int64)
        if not self.longest:
            return phonemes, frames
        drawn = draws.below(draws.key(self.seed, self.epoch, "crop"), records, self.longest - self.shortest + 1)
        kept = np.minimum(frames, drawn + self.shortest)
        return -(-phonemes * kept // frames), kept

    def crop(self, record: int, utterance: Utterance, boundary: np.ndarray) -> Utterance:
        """A part of an utterance from the start of a word to the end of one, with no more tokens than `lengths` says.

        Its first word is drawn from those behind which there is a crop's length. Where no word ends in time, the crop
        ends between two phonemes.

        Args:
          record: number of the utterance.
          utterance: with `phoneme_frames`.
          boundary: phoneme ids that stand between words.
        """
        size = len(utterance.phonemes), len(utterance.codes)
        most_phonemes, most_frames = (int(n) for n in self.lengths(np.array(record), *map(np.array, size)))
        if most_frames == size[1]:
            return utterance
        assert utterance.phoneme_frames is not None, "the dataset is not aligned"
        between = np.isin(utterance.phonemes, boundary)
        frames = np.append(utterance.phoneme_frames, size[1])
        frames[0] = 0  # the silence in front
        first = np.flatnonzero(np.append(True, between[:-1]) & (frames[:-1] <= size[1] - most_frames))
        start = int(first[draws.below(draws.key(self.seed, self.epoch, "crop start"), record, len(first))])
        length = frames[start:] - frames[start]  # of a crop that ends before each of the phonemes from there on
        count = np.arange(len(length))
        room = most_phonemes + (most_frames - length) // self.frames_per_token  # fewer frames make room for phonemes
        fits = (length > 0) & (length <= most_frames) & (count <= room)
        ends = np.flatnonzero(fits & np.append(between, True)[start:])
        if not len(ends):
            ends = np.flatnonzero(fits)
        n_phonemes, n_frames = (int(ends[-1]), int(length[ends[-1]])) if len(ends) else (1, most_frames)
        here, there = slice(start, start + n_phonemes), slice(int(frames[start]), int(frames[start]) + n_frames)
        return dataclasses.replace(
            utterance,
            phonemes=utterance.phonemes[here],
            codes=utterance.codes[there],
            phoneme_frames=utterance.phoneme_frames[here] - frames[start],
        )
