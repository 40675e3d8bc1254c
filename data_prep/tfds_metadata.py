"""TensorFlow Datasets metadata of a dataset, so that `tfds.builder_from_directory(folder)` reads its records.

The two files are written as plain JSON: tfds itself, which imports TensorFlow, is not needed to prepare a dataset.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from data_prep.files import write_json
from valle_jax.version import __version__

_MODULE = "tensorflow_datasets.core.features"
_STRINGS = ("utterance_id", "speaker_id", "language", "text", "source")


def write_metadata(folder: str | os.PathLike, shard_utterances: Sequence[int], n_bytes: int, *, aligned: bool) -> None:
    """Writes features.json and dataset_info.json for shards of so many records; `n_bytes` is the size of all shards.

    `aligned` records have `phoneme_frames`.
    """
    features = {name: {"pythonClassName": f"{_MODULE}.text_feature.Text", "text": {}} for name in _STRINGS}
    features |= {"codes": _scalar("string"), "n_frames": _scalar("int64"), "phonemes": _sequence(_scalar("int64"))}
    if aligned:
        features["phoneme_frames"] = _sequence(_scalar("int64"))
    write_json(
        pathlib.Path(folder) / "features.json",
        {
            "pythonClassName": f"{_MODULE}.features_dict.FeaturesDict",
            "featuresDict": {"features": dict(sorted(features.items()))},
        },
    )
    write_json(
        pathlib.Path(folder) / "dataset_info.json",
        {
            "name": "valle_jax",
            "version": "1.0.0",
            "description": f"Phonemes and codec codes of an audio corpus, prepared by valle-jax {__version__}.",
            "fileFormat": "tfrecord",
            "splits": [
                {
                    "name": "data",
                    "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
                    "shardLengths": [str(n) for n in shard_utterances],
                    "numBytes": str(n_bytes),
                }
            ],
        },
    )


def _scalar(dtype: str) -> dict:
    tensor = {"dtype": dtype, "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_MODULE}.tensor_feature.Tensor", "tensor": tensor}


def _sequence(feature: dict) -> dict:
    sequence = {"feature": feature, "length": "-1"}
    return {"pythonClassName": f"{_MODULE}.sequence_feature.Sequence", "sequence": sequence}
