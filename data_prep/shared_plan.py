"""How a command over a corpus begins: with the plan that all its processes share."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterable

import tqdm

from data_prep import listing
from data_prep.plan import Plan
from data_prep.sources import Recording
from valle_jax.errors import UserError


def begin(
    folder: pathlib.Path,
    recordings: Iterable[Recording],
    make: Callable[[Iterable[Recording]], Plan],
    *,
    progress: bool,
) -> Plan:
    """Makes a folder with a plan and the listing of its recordings, or checks that the plan that is there is the same.

    Raises:
      UserError: the folder holds something else, or another plan.
    """
    path = folder / "plan.json"
    with _folder(folder), listing.NewListing(folder) as new:
        plan = make(tqdm.tqdm(new.through(recordings), "list", unit=" recordings", leave=False, disable=not progress))
        others = {found.name for found in folder.iterdir() if found.suffix != ".tmp"} - {
            listing.LISTING,
            listing.OFFSETS,
        }
        if path.exists():
            plan.check_resumable(path)
        elif others:
            raise UserError(f"{folder} is not empty and holds no plan.json of an earlier run; choose another --out")
        new.keep(plan.shard_sizes())
        if not path.exists():
            plan.save(path)
    return plan


@contextlib.contextmanager
def _folder(folder: pathlib.Path):
    """Makes a folder, and takes it away again if nothing comes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where it is empty
        raise
