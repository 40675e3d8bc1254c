"""Audio and measured values on disk by the hash of what decides them; processes may share a folder.

A file is written to a temporary name and renamed, so that it is whole or not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from valle_jax.audio import read_audio, write_audio
from valle_jax.evaluation.sample import Values


class Cache:
    """A folder of `KEY.flac` with `KEY.json` about it, and of `KEY.values.json`.

    Audio is kept in 16 bits; what is measured is what was read back.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def path(self, key: str) -> pathlib.Path:
        """Of the audio; there where the audio is not empty."""
        return self.folder / key[:2] / f"{key}.flac"

    def info(self, key: str) -> dict[str, Any] | None:
        """What was kept with the audio; None where there is none."""
        return self._read(self.path(key).with_suffix(".json"))

    def audio(self, key: str) -> np.ndarray:
        """Float32 [samples] of audio that `info` knows."""
        info = self.info(key)
        assert info is not None
        if not info["samples"]:  # which FLAC cannot hold
            return np.zeros(0, np.float32)
        return read_audio(self.path(key), info["sample_rate"])

    def keep(self, key: str, audio: np.ndarray, sample_rate: int, info: Mapping[str, Any]) -> None:
        """Writes audio, and then what says that it is there."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(audio):
            partial = path.with_suffix(f".{os.getpid()}.flac")
            write_audio(partial, audio, sample_rate)
            os.replace(partial, path)
        self._write(path.with_suffix(".json"), {**info, "samples": len(audio), "sample_rate": sample_rate})

    def values(self, key: str) -> dict[str, Values]:
        """Measured values, by measure."""
        return self._read(self.path(key).with_suffix(".values.json")) or {}

    def keep_values(self, key: str, values: Mapping[str, Values]) -> None:
        """Writes them in place of those that were there."""
        path = self.path(key).with_suffix(".values.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, values)

    def _read(self, path: pathlib.Path) -> Any:
        with contextlib.suppress(FileNotFoundError):
            return json.loads(path.read_text(encoding="utf-8"))
        return None

    def _write(self, path: pathlib.Path, content: Any) -> None:
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, path)
