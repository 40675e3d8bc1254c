"""The two files of `valle batch`: jobs, a line each, that are read as they are needed, and the results that say which
of them are done. Memory does not grow with them, but for a bit a job.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from valle_jax.errors import UserError

_FIELDS = {"id": str, "text": str, "prompt": str, "prompt_text": str, "voice": str, "seed": int}
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,120}")  # an id is the name of a file


@dataclasses.dataclass(frozen=True)
class BatchJob:
    """A line of the jobs' file.

    Attributes:
      line: its number, from 0.
      id: name of the audio file.
      text: what to say.
      prompt: audio file of the voice; None where `voice` names one.
      prompt_text: what the prompt says.
      voice: a stored voice; None where there is a prompt.
      seed: of the random draws; None: the command's.
    """

    line: int
    id: str
    text: str
    prompt: str | None = None
    prompt_text: str | None = None
    voice: str | None = None
    seed: int | None = None


@dataclasses.dataclass(frozen=True)
class BadLine:
    """A line that is no job, and why."""

    line: int
    id: str
    reason: str


def parse_job(line: int, text: str) -> BatchJob | BadLine:
    """One line of the jobs' file."""
    try:
        value = json.loads(text)
    except ValueError:
        return BadLine(line, "", "not JSON")
    if not isinstance(value, dict):
        return BadLine(line, "", "not a JSON object")
    name: str = value["id"] if isinstance(value.get("id"), str) else ""

    def bad(reason: str) -> BadLine:
        return BadLine(line, name, reason)

    for key, kind in _FIELDS.items():
        if key in value and (not isinstance(value[key], kind) or isinstance(value[key], bool)):
            return bad(f"{key} is not of type {kind.__name__}")
    unknown = sorted(value.keys() - _FIELDS.keys())
    if unknown:
        return bad(f"unknown field {unknown[0]!r}; known: {', '.join(_FIELDS)}")
    if not _SAFE.fullmatch(name) or name.startswith("."):
        return bad("id must be 1 to 120 letters, digits, '.', '_' or '-', not beginning with '.'")
    if not value.get("text", "").strip():
        return bad("no text")
    if ("prompt" in value) == ("voice" in value):
        return bad("needs either prompt and prompt_text or voice")
    if "prompt" in value and not value.get("prompt_text", "").strip():
        return bad("prompt without prompt_text")
    return BatchJob(line, **value)


def check_ids(path: str | os.PathLike[str]) -> None:
    """UserError unless every id stands once: it names a file. Takes 8 bytes a job, for as long as it runs."""
    hashes = array.array("Q")
    for _, text in _lines(path):
        job = parse_job(0, text)
        if isinstance(job, BatchJob):
            hashes.append(int.from_bytes(hashlib.blake2b(job.id.encode(), digest_size=8).digest(), "little"))
    ordered = np.sort(np.frombuffer(hashes, np.uint64))
    twice = int((ordered[1:] == ordered[:-1]).sum())
    if twice:
        raise UserError(f"{path}: {twice} jobs have an id that an earlier one has; ids are names of files")


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """The lines of a jobs' file that hold something, with their numbers."""
    try:
        with open(path, encoding="utf-8") as file:
            yield from ((number, text) for number, text in enumerate(file) if text.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read jobs {path}: {getattr(error, 'strerror', None) or error}") from None


def read_jobs(path: str | os.PathLike[str], *, part: int, parts: int, done: Done) -> Iterator[BatchJob | BadLine]:
    """The jobs that are not done yet, in the order of the file; of `parts` workers, each takes every parts-th line."""
    for number, text in _lines(path):
        if number % parts == part and number not in done:
            yield parse_job(number, text)


class Done:
    """A set of line numbers, a bit each."""

    def __init__(self) -> None:
        self._bits = np.zeros(1024, np.uint8)
        self._count = 0

    def __contains__(self, line: int) -> bool:
        return line // 8 < len(self._bits) and bool(self._bits[line // 8] >> (line % 8) & 1)

    def __len__(self) -> int:
        return self._count

    def add(self, line: int) -> None:
        """Puts a line into the set."""
        if line in self:
            return
        while line // 8 >= len(self._bits):
            self._bits = np.concatenate([self._bits, np.zeros_like(self._bits)])
        self._bits[line // 8] |= 1 << (line % 8)
        self._count += 1


class Results:
    """The results of one worker, appended a line each, and which jobs all workers have done.

    A line is written when its audio is in place, and it is what makes a job done: after a kill at any moment the jobs
    without a line are done again, the others not.

    Attributes:
      done: the jobs' line numbers, of every worker's file in the folder.
    """

    def __init__(self, folder: str | pathlib.Path, *, part: int, parts: int):
        folder = pathlib.Path(folder)
        name = "results.jsonl" if parts == 1 else f"results-{part:05d}-of-{parts:05d}.jsonl"
        self.done = Done()
        for path in sorted(folder.glob("results*.jsonl")):
            whole = 0
            with open(path, "rb") as file:
                for text in file:
                    if not text.endswith(b"\n"):
                        break  # its writer was killed
                    whole += len(text)
                    self.done.add(json.loads(text)["line"])
            if path.name == name and whole < path.stat().st_size:
                with open(path, "rb+") as file:
                    file.truncate(whole)
        self._file = open(folder / name, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def append(self, line: int, record: dict[str, Any]) -> None:
        """Writes the line of a job that is done, for good."""
        self._file.write(json.dumps({"line": line, **record}, ensure_ascii=False) + "\n")
        self._file.flush()
        self.done.add(line)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
