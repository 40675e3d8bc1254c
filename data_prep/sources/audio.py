"""The audio of recordings, wherever it lies: a file, a part of one, an object store, an archive, TensorFlow Datasets.

Archives are read forwards. Each process keeps the last few open where it stopped, so one whose shards come in order
reads a .tar.gz once, whatever the size of a shard; going back starts again.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import urllib.parse
import zlib
from collections.abc import Iterable
from typing import IO, Any, cast

import fsspec
import numpy as np
import soundfile

from data_prep.sources.recording import Recording
from valle_jax.audio import read_audio, resample
from valle_jax.data.schema import Example
from valle_jax.errors import UserError
from valle_jax.storage import explained, is_remote

TFDS = "tfds:"


class AudioReader:
    """The audio of some recordings, which are read one after the other.

    Whole files of object stores and members of archives are fetched at once, archives in the order of their bytes;
    local files and parts of long ones are opened when they are read.
    """

    def __init__(self, recordings: Iterable[Recording]):
        self._fetched: dict[Recording, bytes | UserError] = {}
        wanted = [recording for recording in recordings if recording.offset is not None or _is_whole_remote(recording)]
        for recording in sorted(wanted, key=lambda one: (one.audio_path, one.offset or 0)):
            try:
                self._fetched[recording] = _fetch(recording)
            except (UserError, FileNotFoundError) as error:
                reason = error if isinstance(error, UserError) else "No such file or directory"
                self._fetched[recording] = UserError(f"cannot read audio {recording.source}: {reason}")

    def seconds(self, recording: Recording) -> float:
        """Duration by the header; 0 where it cannot be read (reading it will say why)."""
        if recording.end_seconds is not None:
            return recording.end_seconds - (recording.start_seconds or 0.0)
        try:
            with self._opened(recording) as file:
                return soundfile.info(file).duration - (recording.start_seconds or 0.0)
        except (soundfile.LibsndfileError, OSError, UserError):
            return 0.0

    def read(self, recording: Recording, sample_rate: int) -> np.ndarray:
        """Float32 [samples] at `sample_rate`.

        Raises:
          UserError: it cannot be read; the message is the same wherever the corpus lies.
        """
        try:
            if recording.audio_path.startswith(TFDS):
                return _tfds_samples(recording, self._bytes(recording), sample_rate)
            with self._opened(recording) as file:
                return read_audio(
                    file,
                    sample_rate,
                    start_seconds=recording.start_seconds or 0.0,
                    end_seconds=recording.end_seconds,
                    name=recording.source,
                )
        except FileNotFoundError:
            raise UserError(f"cannot read audio {recording.source}: No such file or directory") from None

    def _bytes(self, recording: Recording) -> bytes:
        fetched = self._fetched[recording]
        if isinstance(fetched, UserError):
            raise fetched
        return fetched

    def _opened(self, recording: Recording) -> contextlib.AbstractContextManager[Any]:
        """What soundfile reads."""
        if recording in self._fetched:
            return io.BytesIO(self._bytes(recording))
        if is_remote(recording.audio_path):
            with explained(recording.audio_path, OSError):
                return fsspec.open(recording.audio_path, "rb").open()
        return contextlib.nullcontext(recording.audio_path)


def open_archive(path: str) -> IO[bytes]:
    """The uncompressed bytes of a .tar, .tar.gz or .tgz."""
    with explained(path, UserError):
        file = fsspec.open(path, "rb").open()
    return cast(IO[bytes], gzip.open(file) if path.endswith("gz") else file)


def _is_whole_remote(recording: Recording) -> bool:
    return is_remote(recording.audio_path) and recording.start_seconds is None and recording.end_seconds is None


def _fetch(recording: Recording) -> bytes:
    path = recording.audio_path
    if recording.offset is None:
        with explained(path, OSError):  # which is tried again
            files, name = fsspec.core.url_to_fs(path)
            return files.cat_file(name)
    if not recording.size:  # the archive has a transcript, but no audio
        raise FileNotFoundError(path)
    try:
        archive = _archive(path.removeprefix(TFDS).partition("?")[0] if path.startswith(TFDS) else path)
        archive.seek(recording.offset)
        content = archive.read(recording.size)
    except Exception as error:  # of any store
        _archive.cache_clear()  # a stream is not to be trusted after an error
        if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
            raise UserError(f"the archive is damaged ({error})") from None
        raise
    if len(content) < recording.size:
        raise UserError("the archive ends early")
    return content


@functools.lru_cache(maxsize=4)
def _archive(path: str) -> IO[bytes]:
    return open_archive(path)


def _tfds_samples(recording: Recording, record: bytes, sample_rate: int) -> np.ndarray:
    """Float32 [samples] of a record of TensorFlow Datasets, whose feature and rate (Hz) the path names."""
    query = dict(urllib.parse.parse_qsl(recording.audio_path.partition("?")[2]))
    feature = Example.FromString(record).features.feature[query["audio"]]
    if feature.HasField("bytes_list"):  # lazy_decode: the file as it was
        return read_audio(io.BytesIO(feature.bytes_list.value[0]), sample_rate, name=recording.source)
    integers = feature.HasField("int64_list")  # TFDS keeps what pydub reads: 16 bits
    values = feature.int64_list.value if integers else feature.float_list.value
    samples = np.array(values, np.float32) / np.float32(2**15 if integers else 1)
    mono = samples.reshape(-1, int(query["channels"])).mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise UserError(f"audio {recording.source} holds NaN or infinite samples")
    return resample(mono, int(query["rate"]), sample_rate)
