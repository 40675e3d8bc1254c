"""The files of a work directory besides its checkpoints, where the work directory is in an object store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from typing import Any

from valle_jax import storage

_CONTINUED = ("metrics.jsonl", "goodput.json")  # a resumed run appends to these
_NOT_KEPT = "plans"


class Mirror:
    """A local folder for what a run writes besides its checkpoints: the work directory itself, if that is local.

    Object stores replace files as a whole and slowly, so for these it is a temporary folder, from which `upload`
    copies what has changed. It is per process: those that write nothing have nothing to upload.

    Attributes:
      local: the folder.
    """

    def __init__(self, workdir: str | os.PathLike[str], process: int):
        """Fetches what a resumed run goes on with; UserError if the object store cannot be used."""
        self._remote: storage.RemoteFolder | None = None
        self._uploaded: dict[str, tuple[int, int]] = {}
        path = storage.work_path(workdir)
        self.local = pathlib.Path(path)
        if not storage.is_remote(path):
            return
        self._remote = storage.RemoteFolder(path)
        # The same name at each start, so that those of killed ones do not pile up.
        digest = hashlib.sha256(self._remote.path.encode()).hexdigest()[:16]
        self.local = pathlib.Path(tempfile.gettempdir(), f"valle-{os.getuid()}-{digest}-{process}")
        shutil.rmtree(self.local, ignore_errors=True)
        self.local.mkdir(mode=0o700)
        for name in _CONTINUED if process == 0 else ():
            with contextlib.suppress(FileNotFoundError):
                (self.local / name).write_bytes(self._remote.read(name))
        self._uploaded = self._stamps()

    def _stamps(self) -> dict[str, tuple[int, int]]:
        """Time and size of each file."""
        files = [file for file in self.local.rglob("*") if file.is_file()]
        stamps = {file.relative_to(self.local).as_posix(): file.stat() for file in files}
        return {name: (s.st_mtime_ns, s.st_size) for name, s in stamps.items() if not name.startswith(_NOT_KEPT)}

    def upload(self) -> None:
        """Copies what has changed since the last time; nothing to do for a local work directory."""
        if self._remote is None:
            return
        for name, stamp in self._stamps().items():
            if self._uploaded.get(name) != stamp:
                self._remote.write(name, self.local / name)
                self._uploaded[name] = stamp

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._remote is None:
            return
        try:
            self.upload()
        except Exception:
            if kind is None:  # otherwise what ended the run is to be told
                raise
        finally:
            shutil.rmtree(self.local, ignore_errors=True)
