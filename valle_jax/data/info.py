"""dataset.json: the facts of a whole dataset, written when all its shards are complete."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from valle_jax import storage
from valle_jax.codec.base import CodecInfo
from valle_jax.errors import UserError
from valle_jax.text.vocabulary import Vocabulary

SCHEMA_VERSION = 1
"""Of the records and the index; datasets of another version are refused."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """dataset.json: what a dataset is.

    Attributes:
      schema_version: of the records and the index.
      codec: that made the codes.
      vocabulary: of the phonemes.
      totals: `utterances`, `frames`, `phonemes`, `speakers`, `hours` and `splits` (utterances of each).
      speaker_seconds: duration per speaker id.
      unknown_symbols: phoneme symbols that the vocabulary lacks, and how often they were met.
      versions: of the programs that decided the bytes.
      options: that decided them, by the names that the command line has for them.
      aligned: whether the records say at which frame each phoneme starts.
    """

    codec: CodecInfo
    vocabulary: Vocabulary
    totals: dict
    speaker_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown_symbols: dict[str, int] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict = dataclasses.field(default_factory=dict)
    aligned: bool = False
    schema_version: int = SCHEMA_VERSION

    @property
    def n_utterances(self) -> int:
        """Utterances of all splits."""
        return self.totals["utterances"]

    def to_json(self) -> dict:
        """A dict that `json.dumps` takes."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not self.aligned:
            del values["aligned"]  # as it was before there were such datasets
        values |= {"codec": self.codec.to_json(), "vocabulary": self.vocabulary.to_json()}
        return {"schema_version": values.pop("schema_version"), **values}

    @classmethod
    def from_json(cls, value: dict) -> DatasetInfo:
        """The inverse of `to_json`."""
        parts = {"codec": CodecInfo.from_json(value["codec"]), "vocabulary": Vocabulary.from_json(value["vocabulary"])}
        return cls(**{**value, **parts})

    def save(self, folder: str | os.PathLike) -> None:
        """Writes dataset.json at once or not at all."""
        path = pathlib.Path(folder) / "dataset.json"
        temporary = pathlib.Path(storage.temporary_name(path))
        temporary.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> DatasetInfo:
        """Reads dataset.json of a local folder or of a URL's.

        Raises:
          UserError: not a dataset directory, an unreadable dataset.json, or one of another schema version.
        """
        path = f"{os.fspath(folder)}/dataset.json"
        try:
            value = json.loads(storage.folder(folder).read("dataset.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{os.fspath(folder)} is not a complete dataset directory (no dataset.json); "
                "make one with `valle prepare`"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; prepare the dataset again") from None
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; prepare the dataset again"
            )
        try:
            return cls.from_json(value)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is not a dataset description ({error}); prepare the dataset again") from None
