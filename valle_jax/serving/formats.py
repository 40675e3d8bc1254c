"""Speech as bytes of a container, at once or while it grows."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

# response_format: media type, and libsndfile's format and subtype
_CONTAINERS = {
    "mp3": ("audio/mpeg", "MP3", "MPEG_LAYER_III"),
    "opus": ("audio/ogg", "OGG", "OPUS"),
    "flac": ("audio/flac", "FLAC", "PCM_16"),
    "wav": ("audio/wav", "WAV", "PCM_16"),
    "pcm": ("audio/pcm", "RAW", "PCM_16"),
}
FORMATS = tuple(_CONTAINERS)
STREAMABLE = ("opus", "flac", "wav", "pcm")  # the first frame of an mp3 names the length
_UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav whose end is not known yet: players read on


def media_type(name: str) -> str:
    """Of a format."""
    return _CONTAINERS[name][0]


def encode(samples: np.ndarray, sample_rate: int, name: str) -> bytes:
    """Float [samples] as a whole file of a format; pcm: 16 bits, little endian, without a header."""
    file = io.BytesIO()
    with _open(file, sample_rate, name) as sound:
        sound.write(np.clip(samples, -1, 1))
    return file.getvalue()


class Encoder:
    """A streamable format piece by piece: what was given out is not changed, so that it can be sent and played."""

    def __init__(self, sample_rate: int, name: str):
        self._file = io.BytesIO()
        # What libsndfile puts before the samples of a wav names their number.
        self._header = _wav_header(sample_rate) if name == "wav" else b""
        self._sound = _open(self._file, sample_rate, "pcm" if name == "wav" else name)
        self._given = 0  # bytes of the file

    def append(self, samples: np.ndarray, *, last: bool = False) -> bytes:
        """The bytes that float [samples] add; a container may hold some back until there are more, or the last."""
        self._sound.write(np.clip(samples, -1, 1))
        if last:
            self._sound.close()
        else:
            self._sound.flush()
        fresh = self._header + self._file.getvalue()[self._given :]
        self._given += len(fresh) - len(self._header)
        self._header = b""
        return fresh


def _open(file: io.BytesIO, sample_rate: int, name: str) -> soundfile.SoundFile:
    _, container, subtype = _CONTAINERS[name]
    endian = "LITTLE" if name == "pcm" else None
    return soundfile.SoundFile(file, "w", sample_rate, 1, format=container, subtype=subtype, endian=endian)


def _wav_header(sample_rate: int) -> bytes:
    """Of 16 bits mono, of unknown length."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    data = struct.pack("<4sI", b"data", _UNKNOWN_SIZE)
    return struct.pack("<4sI4s", b"RIFF", _UNKNOWN_SIZE, b"WAVE") + form + data
