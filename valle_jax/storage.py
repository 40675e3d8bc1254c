"""Where datasets and runs are: local folders, or folders of an object store by their URL, such as `gs://bucket/folder`.

Object stores are reached through fsspec, by the package of each (gcsfs, s3fs, …), which also repeats requests that fail
transiently.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from valle_jax.errors import RestartError, UserError

if TYPE_CHECKING:
    from etils import epath

# Orbax's and JAX's paths would otherwise go through TensorFlow wherever that happens to be installed.
os.environ.setdefault("EPATH_USE_TF", "false")

_OPEN_FILES = 4  # per reading thread


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether this is the URL of an object store."""
    return "://" in os.fspath(path)


def temporary_name(path: str | os.PathLike[str]) -> str:
    """A name beside `path` that no other process, on any machine, writes to at the same time; it ends in .tmp."""
    return f"{os.fspath(path)}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp"


class LocalFolder:
    """Files of a local folder, whole or in parts; threads may share it.

    Attributes:
      path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self._local = threading.local()

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        with os.scandir(self.path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def read(self, name: str) -> bytes:
        """A whole file; OSError where it cannot be read."""
        return (self.path / name).read_bytes()

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, less where the file ends earlier; OSError where it cannot be read."""
        return os.pread(self._file(name).fileno(), end - start, start)

    def _file(self, name: str) -> io.FileIO:
        """The file, opened; each thread keeps its own last few, so that none is closed while another reads it."""
        files = self._local.__dict__.setdefault("files", OrderedDict())
        if name not in files:
            files[name] = io.FileIO(self.path / name)
            if len(files) > _OPEN_FILES:
                files.popitem(last=False)[1].close()
        files.move_to_end(name)
        return files[name]


class RemoteFolder:
    """The same of a folder in an object store, and files written whole.

    What is not there is a FileNotFoundError. All other failures come after the package's own attempts to repeat the
    request: while a run starts they are a UserError, and while it reads and writes data a RestartError.

    Attributes:
      path: URL of the folder, without a slash at its end.
    """

    def __init__(self, url: str | os.PathLike[str]):
        self.path = os.fspath(url).rstrip("/")
        with explained(self.path, UserError):
            import fsspec

            # What other processes write, and TensorStore in this one, must be seen.
            fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
            self._files, self._root = fsspec.core.url_to_fs(self.path)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file; one listing."""
        with explained(self.path, UserError):
            entries = self._files.ls(self._root, detail=True, refresh=True)
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries}

    def read(self, name: str) -> bytes:
        """A whole file."""
        with explained(f"{self.path}/{name}", UserError):
            return self._files.cat_file(f"{self._root}/{name}")

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, less where the file ends earlier; one request."""
        with explained(f"{self.path}/{name}", RestartError):
            # By keywords, as s3fs has another argument before these.
            return self._files.cat_file(f"{self._root}/{name}", start=start, end=end)

    def write(self, name: str, file: pathlib.Path) -> None:
        """Puts a copy of a local file here, whole or not at all."""
        with explained(f"{self.path}/{name}", RestartError):
            self._files.put_file(str(file), f"{self._root}/{name}")

    def check_bucket(self) -> None:
        """UserError if the bucket is not there or not to be read; the folder need not be."""
        with explained(self.path, UserError):
            try:
                self._files.find(self._root)
            except FileNotFoundError:
                raise UserError(f"{self.path}: there is no such bucket; create it first") from None


@contextlib.contextmanager
def explained(url: str, kind: type[Exception]) -> Iterator[None]:
    """Turns what goes wrong at this URL, except for a missing file, into one line."""
    try:
        yield
    except (FileNotFoundError, UserError):
        raise
    except ImportError as error:
        raise UserError(f"{url}: {error}; pip install 'valle-jax[storage]' brings what gs:// and s3:// need") from None
    except Exception as error:  # each package has exceptions of its own, with no common ancestor
        text = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"cannot access {url}: {text}; check the address, the network and the credentials") from None


def folder(path: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
    """A folder to read from, by its path or URL; UserError for a URL that cannot be used."""
    return RemoteFolder(path) if is_remote(path) else LocalFolder(path)


def work_path(workdir: str | os.PathLike[str]) -> epath.Path:
    """A work directory as Orbax takes it.

    Raises:
      UserError: an object store to which Orbax cannot write, or one whose package or bucket is missing.
    """
    from etils import epath

    if not is_remote(workdir):
        return epath.Path(workdir).absolute()
    if not os.fspath(workdir).startswith("gs://"):
        raise UserError(f"{os.fspath(workdir)}: a work directory is a local folder or gs://BUCKET/FOLDER")
    RemoteFolder(workdir).check_bucket()
    return epath.Path(workdir)
