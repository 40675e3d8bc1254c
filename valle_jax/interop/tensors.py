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

    def take(self, name: str) -> np.ndarray:
        """A tensor, float32; ValueError where there is none of this name."""
        if name not in self._tensors:
            raise ValueError(f"it has no tensor {name}")
        self._left.pop(name, None)
        return np.asarray(self._tensors[name], np.float32)

    def left(self) -> list[str]:
        """Names of the tensors that nobody took."""
        return list(self._left)
