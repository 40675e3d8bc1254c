"""A state dict of which every tensor must find its use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Tensors:
    """Hands out the tensors of a state dict, each once."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = dict(tensors)
        self._left = dict.fromkeys(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int | None) -> np.ndarray:
        """A tensor, float32.

        Args:
          name: of the tensor.
          shape: what it must have, None for any size of an axis; nothing for any shape.

        Raises:
          ValueError: there is none of this name, or it has another shape.
        """
        if name not in self._tensors:
            raise ValueError(f"it has no tensor {name}")
        self._left.pop(name, None)
        value = np.asarray(self._tensors[name], np.float32)
        if shape and (
            len(shape) != value.ndim or any(n not in (None, found) for n, found in zip(shape, value.shape, strict=True))
        ):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"its tensor {name} has the shape {list(value.shape)}, not [{expected}]")
        return value

    def left(self) -> list[str]:
        """Names of the tensors that nobody took."""
        return list(self._left)
