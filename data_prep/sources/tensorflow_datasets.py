"""Datasets of TensorFlow Datasets that have audio; TensorFlow is needed to list one, not to read its audio."""

from __future__ import annotations

import io
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Any

import soundfile

from data_prep.sources.audio import TFDS, open_archive
from data_prep.sources.recording import Recording
from valle_jax.data.schema import Example
from valle_jax.errors import UserError

# Names of features, the best first.
_TEXTS = ("text_normalized", "normalized_text", "text", "transcript", "transcription", "sentence")
_SPEAKERS = ("speaker_id", "speaker", "client_id")
_IDS = ("id", "utterance_id")


def tfds(source: str) -> Iterator[Recording]:
    """All splits of `tfds:NAME` (prepared before, by `tfds build NAME`) or `tfds:DIRECTORY`, in the order of its files.

    Features are found by their names and types; `tfds:NAME?text=…&speaker=…&audio=…&rate=…` names them, and the sample
    rate (Hz) where the dataset does not. Without a speaker, the dataset stands for one. A split that begins with `test`
    is the split test; `valid…` is valid_utterance. Files: https://www.tensorflow.org/datasets/external_tfrecord.

    Raises:
      UserError: no such dataset, not in TFRecords, or features that are not there or not to be told apart.
    """
    address, _, query = source.removeprefix(TFDS).partition("?")
    named = dict(urllib.parse.parse_qsl(query))
    if unknown := named.keys() - {"text", "speaker", "audio", "rate"}:
        raise UserError(f"{source}: unknown {min(unknown)!r}; known are text, speaker, audio, rate")
    builder = _builder(address)
    features = builder.info.features
    audio, text, speaker = _chosen(source, features, named)
    rate = int(named.get("rate") or getattr(features[audio], "sample_rate", None) or 0)
    if not rate:
        raise UserError(f"{source}: the dataset does not say the sample rate; add ?rate=HZ")
    channels = (*features[audio].shape, 1)[1]
    reading = urllib.parse.urlencode({"audio": audio, "rate": rate, "channels": channels})
    identity = next((name for name in _IDS if name in features), None)
    for split, info in builder.info.splits.items():
        number = 0
        for path in info.filepaths:
            for offset, record in _records(str(path)):
                values = Example.FromString(record).features.feature
                name = _value(values, features, identity) if identity else f"{number:08d}"
                folder = split.replace("_clean", "-clean").replace("_other", "-other")  # as LibriSpeech names them
                yield Recording(
                    utterance_id=name if identity else f"{split}-{name}",
                    speaker_id=_value(values, features, speaker) if speaker else builder.info.name,
                    text=_value(values, features, text).strip() if text else "",
                    audio_path=f"{TFDS}{path}?{reading}",
                    source=f"{builder.info.name}/{folder}/{name}",
                    split=_split(split),
                    start_seconds=0.0,
                    end_seconds=_seconds(values[audio], rate * channels),
                    offset=offset,
                    size=len(record),
                )
                number += 1


def _builder(address: str) -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"{TFDS} needs TensorFlow Datasets (no module {error.name!r}): pip install 'valle-jax[prep]'"
        ) from None
    try:
        if address.startswith(("/", ".")) or "://" in address:
            builder = tensorflow_datasets.builder_from_directory(address)
        else:
            builder = tensorflow_datasets.builder(address, try_gcs=False)
    except Exception as error:  # of many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{TFDS}{address}: no such dataset ({reason[0]})") from None
    if not builder.info.splits:
        raise UserError(f"{TFDS}{address} is not prepared in {builder.data_dir}; run: tfds build {address}")
    if builder.info.file_format.value != "tfrecord":
        raise UserError(f"{TFDS}{address} is in {builder.info.file_format.value}; build it with --file_format=tfrecord")
    return builder


def _chosen(source: str, features: Any, named: dict[str, str]) -> tuple[str, str | None, str | None]:
    """Names of the features that are audio, text and speaker."""
    for name in ("audio", "text", "speaker"):
        if name in named and named[name] not in features:
            raise UserError(f"{source}: no feature {named[name]!r}; there are {', '.join(sorted(features))}")
    heard = [name for name, feature in features.items() if type(feature).__name__ == "Audio"]
    if "audio" not in named and len(heard) != 1:
        raise UserError(f"{source} has {len(heard)} audio features ({', '.join(heard)}); name one by ?audio=NAME")
    text = named.get("text") or next((name for name in _TEXTS if name in features), None)
    speaker = named.get("speaker") or next((name for name in _SPEAKERS if name in features), None)
    return named.get("audio") or heard[0], text, speaker


def _value(values: Any, features: Any, name: str) -> str:
    """A string or an integer as text; a label by its name."""
    feature = values[name]
    if feature.bytes_list.value:
        return feature.bytes_list.value[0].decode("utf-8", "replace")
    number = feature.int64_list.value[0] if feature.int64_list.value else ""
    return features[name].int2str(number) if hasattr(features[name], "int2str") and number != "" else str(number)


def _seconds(audio: Any, values_per_second: int) -> float:
    if audio.bytes_list.value:  # a file, as lazy_decode keeps it
        try:
            return soundfile.info(io.BytesIO(audio.bytes_list.value[0])).duration
        except soundfile.LibsndfileError:  # reading it will say so
            return 0.0
    return (len(audio.int64_list.value) + len(audio.float_list.value)) / values_per_second


def _split(name: str) -> str | None:
    if name.startswith("test"):
        return "test"
    return "valid_utterance" if name.startswith("valid") else None


def _records(path: str) -> Iterator[tuple[int, bytes]]:
    """Each record of a TFRecord file and where in the file it begins."""
    offset = 0
    with open_archive(path) as file:
        while header := file.read(12):  # length, and its checksum
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            record = file.read(size) if size >= 0 else b""
            if size < 0 or len(record) < size or len(file.read(4)) < 4:
                raise UserError(f"{path} ends early, in the record at byte {offset}; build the dataset again")
            yield offset + 12, record
            offset += 16 + size
