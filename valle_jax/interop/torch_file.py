"""PyTorch's files of tensors, read without PyTorch and without running anything that is in them."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


# Packages whose objects training programs leave in their checkpoints; whatever else a file names is refused.
_LEFT_OUT = frozenset(
    {"argparse", "collections", "datetime", "icefall", "lhotse", "numpy", "pathlib", "torch", "valle", "_codecs"}
)
_BUILTINS = ("builtins", "__builtin__")  # the second in the pickles of protocol 2
_BUILTIN_CLASSES = frozenset(
    {"bool", "bytearray", "complex", "dict", "float", "frozenset", "int", "list", "long", "object", "range", "set"}
    | {"slice", "str", "tuple", "unicode"}
)


class Opaque:
    """Stands for an object that is not read: paths, options, optimizers, tensors of special kinds."""

    name = ""
    """Where its class is defined."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As of a list."""

    extend = append


def load(path: str | os.PathLike) -> Any:
    """What `torch.save` wrote: nested dicts, lists and numbers, with numpy arrays where it had tensors.

    No class and no function that the file names is imported or called. Objects of the kinds that training programs
    save beside their tensors come as `Opaque`.

    Raises:
      ValueError: not such a file, a damaged one, one of PyTorch before 1.6, or one that names anything else.
      OSError: as of `open`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                return _Unpickler(file, archive, name.removesuffix("data.pkl")).load()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                raise ValueError(f"it is damaged or cut short ({error}); get it again") from None
        raise ValueError(
            "it is no zip file, as PyTorch writes since 1.6; load it with PyTorch and save it again"
        ) from None
    except (StopIteration, LookupError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"it is not what PyTorch saves: {error or type(error).__name__}") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(file, encoding="utf-8")
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        root = module.split(".")[0]
        if root in _LEFT_OUT or (module in _BUILTINS and name in _BUILTIN_CLASSES):
            return type("Opaque", (Opaque,), {"name": f"{module}.{name}"})
        raise ValueError(f"it names {module}.{name}, which is not run or read; save the tensors alone (a state dict)")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        if kind != "storage" or issubclass(dtype, Opaque):
            raise ValueError(f"it holds a {kind} of the type {getattr(dtype, 'name', dtype)}, which is not read")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype)[:count]


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min(offset, *strides, 0) < 0 or (0 not in shape and last >= len(storage)):
        raise ValueError("a tensor reaches out of its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
