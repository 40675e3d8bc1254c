"""A voice to imitate, encoded once: codes of a prompt and the phonemes of what it says, in a small file."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import zipfile

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.errors import UserError

VERSION = 1
SUFFIX = ".voice.npz"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """An encoded prompt.

    Attributes:
      codes: uint16 [P, Q], of the prompt's audio.
      text: what the prompt says.
      phonemes: of the text, as `Phonemizer` writes them.
      language: of the text, as espeak-ng names it.
      codec: what made the codes.
    """

    codes: np.ndarray
    text: str
    phonemes: str
    language: str
    codec: CodecInfo

    @property
    def seconds(self) -> float:
        """Length of the prompt."""
        return len(self.codes) / self.codec.frames_per_second

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the voice; a reader sees all of it or nothing."""
        facts = {"version": VERSION, "text": self.text, "phonemes": self.phonemes, "language": self.language}
        facts["codec"] = self.codec.to_json()
        path = pathlib.Path(path)
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                np.savez_compressed(file, codes=self.codes.astype(np.uint16), facts=json.dumps(facts))
            part.replace(path)
        except OSError as error:
            raise UserError(f"cannot write voice {path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Reads what `save` wrote; UserError where that cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                codes, facts = file["codes"], json.loads(str(file["facts"]))
            if facts["version"] != VERSION:
                raise UserError(f"voice {path} has version {facts['version']}, this program reads version {VERSION}")
            codec = CodecInfo.from_json(facts["codec"])
            return cls(codes, facts["text"], facts["phonemes"], facts["language"], codec)
        except OSError as error:
            raise UserError(f"cannot read voice {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, zipfile.BadZipFile):
            raise UserError(f"{path} is not a voice: `valle voice add` makes one") from None


def voices_folder() -> pathlib.Path:
    """Where voices are kept: $VALLE_VOICES, or a folder of the user's data."""
    data = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(os.environ.get("VALLE_VOICES") or pathlib.Path(data) / "valle" / "voices")


def voice_path(name: str, folder: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The file of a voice; UserError for a name that is none. A name is never a path."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a voice: 1 to 64 letters, digits, '.', '_' or '-'")
    return pathlib.Path(folder or voices_folder()) / f"{name}{SUFFIX}"


def list_voices(folder: str | os.PathLike[str] | None = None) -> dict[str, pathlib.Path]:
    """Files of the voices in a folder, by name."""
    paths = sorted(pathlib.Path(folder or voices_folder()).glob(f"*{SUFFIX}"))
    return {path.name.removesuffix(SUFFIX): path for path in paths}


def find_voice(name: str, folder: str | os.PathLike[str] | None = None) -> Voice:
    """The voice of a name; UserError, with those that are there, where there is none."""
    path = voice_path(name, folder)
    if not path.exists():
        known = ", ".join(list_voices(folder)) or "none yet; `valle voice add` makes one"
        raise UserError(f"no voice {name!r} in {path.parent}; known: {known}")
    return Voice.load(path)
