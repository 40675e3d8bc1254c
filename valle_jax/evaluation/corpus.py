"""The recordings that trials are made of: a corpus in a layout that `valle prepare` reads, or a dataset's sources."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib

import soundfile

from valle_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Spoken:
    """A recording with its transcript.

    Attributes:
      utterance: unique in the corpus.
      speaker: unique in the corpus.
      text: what is said.
      audio: path of the file inside the corpus, with forward slashes.
      seconds: its length.
      split: one of `valle_jax.data.schema.SPLITS`, or None where the corpus knows none.
      language: espeak-ng code, or None where the corpus does not say.
    """

    utterance: str
    speaker: str
    text: str
    audio: str
    seconds: float
    split: str | None = None
    language: str | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """What makes no trial, and why."""

    utterance: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Recordings in a fixed order.

    Attributes:
      root: folder that the audio's paths start from.
      recordings: those that can be read.
      rejected: the others.
    """

    root: pathlib.Path
    recordings: tuple[Spoken, ...]
    rejected: tuple[Rejected, ...]

    @classmethod
    def open(cls, data: str | os.PathLike[str], audio: str | os.PathLike[str] | None = None) -> Corpus:
        """Lists a corpus; only headers of audio files are read.

        Args:
          data: a corpus (LibriSpeech, LJSpeech, JSONL), or a dataset directory.
          audio: of a dataset directory: the corpus that it was prepared from.

        Raises:
          UserError: neither a corpus nor a dataset directory, or a dataset directory without `audio`.
        """
        root = pathlib.Path(data)
        rejected: list[Rejected] = []
        if (root / "dataset.json").is_file():
            if audio is None:
                raise UserError(f"{root} is a dataset directory: say where its recordings are with --audio CORPUS")
            listed, root = _of_dataset(root), pathlib.Path(audio)
        else:
            if audio is not None:
                raise UserError(f"--audio is for dataset directories, and {root} is none (no dataset.json)")
            listed = _of_layout(root, rejected)
        root = root if root.is_dir() else root.parent
        kept = []
        for recording in sorted(listed, key=lambda recording: recording.utterance):
            try:
                seconds = round(soundfile.info(root / recording.audio).duration, 3)
            except (soundfile.LibsndfileError, OSError):
                rejected.append(Rejected(recording.utterance, "its audio cannot be read"))
                continue
            if recording.text:
                kept.append(dataclasses.replace(recording, seconds=seconds))
            else:
                rejected.append(Rejected(recording.utterance, "no transcript"))
        return cls(root, tuple(kept), tuple(rejected))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any field of any recording, not with where the corpus lies."""
        listing = [dataclasses.astuple(recording) for recording in self.recordings]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def _of_layout(root: pathlib.Path, rejected: list[Rejected]) -> list[Spoken]:
    """The recordings that are files; the others are added to `rejected`."""
    from data_prep.sources import detect_layout, list_recordings

    listed = []
    for r in list_recordings(root, detect_layout(root)):
        if r.offset is not None or r.start_seconds is not None or r.end_seconds is not None:
            rejected.append(Rejected(r.utterance_id, "it is a part of an archive or of a longer file; unpack it first"))
        else:
            listed.append(Spoken(r.utterance_id, r.speaker_id, r.text, r.source, 0.0, r.split, r.language))
    return listed


def _of_dataset(folder: pathlib.Path) -> list[Spoken]:
    from valle_jax.data.dataset import Dataset
    from valle_jax.data.schema import SPLITS

    dataset = Dataset.open(folder)
    utterances = ((dataset.read(i), SPLITS[dataset.index.split[i]]) for i in range(len(dataset)))
    return [Spoken(u.utterance_id, u.speaker_id, u.text, u.source, 0.0, split, u.language) for u, split in utterances]
