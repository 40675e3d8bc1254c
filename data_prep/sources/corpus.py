"""The files of a corpus, in a local folder or by URL in an object store, listed and read the same way."""

from __future__ import annotations

import functools
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from typing import IO, cast

import fsspec

from valle_jax.errors import UserError
from valle_jax.storage import explained, is_remote

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


class Corpus:
    """A folder, or one file of it.

    Attributes:
      path: of the folder, local or by URL, without a slash at its end.
      file: name of the one file in the folder that is meant, or None.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """UserError where there is nothing at `path`."""
        path = os.fspath(path)
        self.path = path.rstrip("/") or "/"
        self.file: str | None = None
        with explained(self.path, UserError):
            self._files, root = fsspec.core.url_to_fs(self.path)
            found = self._files.info(root)["type"] if self._files.exists(root) else None
        if found is None:
            raise UserError(f"no such file or folder: {path}")
        if found == "file":
            folder, _, self.file = self.path.rpartition("/")
            self.path = folder or "."
        self.root = root.rpartition("/")[0] if self.file else root

    @property
    def name(self) -> str:
        """Of the folder, whatever links lead to it."""
        return os.path.basename(self.root.rstrip("/") if is_remote(self.path) else os.path.realpath(self.root))

    @functools.cached_property
    def top(self) -> dict[str, str]:
        """What lies directly in the folder, by name: `file` or `directory`; only the one file where one is meant."""
        if self.file:
            return {self.file: "file"}
        with explained(self.path, UserError):
            entries = self._files.ls(self.root, detail=True)
        found = {entry["name"].rstrip("/").rpartition("/")[2]: entry["type"] for entry in entries}
        return dict(sorted(found.items()))

    def matching(self, *suffixes: str) -> list[str]:
        """Names of files directly in the folder that end so."""
        return [name for name, kind in self.top.items() if kind != "directory" and name.endswith(suffixes)]

    def address(self, name: str) -> str:
        """What opens a file of the corpus: a local path, or a URL."""
        return f"{self.path}/{name}" if is_remote(self.path) else os.path.join(self.path, name)

    def walk(self, folder: str = "") -> Iterator[tuple[str, list[str]]]:
        """Each folder at any depth, relative to the corpus (the corpus itself is ""), with its files, all in order."""
        top = f"{self.root}/{folder}" if folder else self.root
        with explained(self.path, UserError):
            for path, subfolders, names in os.walk(top) if not is_remote(self.path) else self._files.walk(top):
                subfolders.sort()
                yield path[len(self.root) :].strip("/"), sorted(names)

    def open(self, name: str) -> IO[bytes]:
        """A file's bytes; the reader unpacks .gz."""
        try:
            with explained(self.address(name), UserError):
                file = self._files.open(f"{self.root}/{name}", "rb")
        except FileNotFoundError:
            raise UserError(f"cannot read {self.address(name)}: No such file or directory") from None
        return cast(IO[bytes], gzip.open(file) if name.endswith(".gz") else file)

    def lines(self, name: str) -> Iterator[str]:
        """Lines that are not blank, of a text file or a .gz of one.

        Raises:
          UserError: the file cannot be read, or is not UTF-8 text.
        """
        address = self.address(name)
        try:
            with self.open(name) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as text:
                yield from (line.rstrip("\r\n") for line in text if line.strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{address} is not UTF-8 text ({error.reason}); convert it") from None
        except (EOFError, zlib.error) as error:
            raise UserError(f"{address} is damaged: {error}") from None
        except OSError as error:
            raise UserError(f"cannot read {address}: {error.strerror or error}") from None


def is_audio(name: str) -> bool:
    """Whether a file is audio, by its suffix."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def joined(*names: str) -> str:
    """Names as a path with forward slashes; empty ones are left out."""
    return "/".join(name for name in names if name)
