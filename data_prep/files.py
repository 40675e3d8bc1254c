"""Files of a dataset that appear whole or not at all, whoever else writes the same one at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import TextIO

from valle_jax.storage import temporary_name


@contextlib.contextmanager
def whole_text(path: str | os.PathLike) -> Iterator[TextIO]:
    """A text file to write, which gets its name when it is complete."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: dict) -> None:
    """Writes a JSON file."""
    with whole_text(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def link_or_copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Gives a file a second name, or where the file system cannot, a copy; a `target` that is there stays."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        temporary = temporary_name(target)
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
