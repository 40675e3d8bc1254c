"""Where EnCodec's weights are: a given file, the cache of the PyTorch hub, or the hub."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import re
import shutil
import tempfile
import urllib.request

from valle_jax.errors import UserError

HUB_HASH = "d7cc33bc"
"""First digits of the SHA-256 of the official weights."""
HUB_FILE = f"encodec_24khz-{HUB_HASH}.th"
_HUB_URL = f"https://dl.fbaipublicfiles.com/encodec/v0/{HUB_FILE}"
_TIMEOUT_SECONDS = 30


def find(weights: str | os.PathLike | None) -> tuple[pathlib.Path, str]:
    """The file of a codec's weights and the first 16 hex digits of its SHA-256.

    Args:
      weights: a file; None: the official weights, in torch.hub's cache, where they are put if they are not there.

    Raises:
      UserError: hub not reachable, file unreadable, or its name ends in eight hex digits that its hash does not start
        with, as those of `encodec_24khz-d7cc33bc.th` must.
    """
    path = pathlib.Path(weights) if weights else _cache() / HUB_FILE
    if not weights and not path.exists():
        try:
            _fetch(path)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"cannot get EnCodec's weights from its hub ({error}); download {HUB_FILE} elsewhere and give its path "
                f"as the codec's weights, or put it at {path}"
            ) from None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read EnCodec weights {path}: {error.strerror or error}") from None
    expected = re.search(r"-([0-9a-f]{8})$", path.stem)
    if expected and not digest.startswith(expected[1]):
        raise UserError(f"{path} is damaged: its SHA-256 starts with {digest[:8]}, not {expected[1]}; get it again")
    return path, digest[:16]


def _cache() -> pathlib.Path:
    """Where torch.hub keeps files, so that both implementations of the codec share them."""
    caches = os.environ.get("XDG_CACHE_HOME", os.path.join(os.path.expanduser("~"), ".cache"))
    return pathlib.Path(os.environ.get("TORCH_HOME", os.path.join(caches, "torch"))) / "hub" / "checkpoints"


def _fetch(path: pathlib.Path) -> None:
    """Downloads the official weights at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as temporary:
        try:
            with urllib.request.urlopen(_HUB_URL, timeout=_TIMEOUT_SECONDS) as answer:
                shutil.copyfileobj(answer, temporary)
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise
