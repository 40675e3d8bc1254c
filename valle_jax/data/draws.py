"""Random draws that are pure functions of integers: the same on every platform, host and worker, in any order."""

from __future__ import annotations

import hashlib

import numpy as np

_CHUNK = 1 << 16  # numbers hashed at a time, which bounds the temporary memory


def key(*parts: int | str) -> int:
    """A 64-bit key of what is drawn, for example `key(seed, epoch, "prompt")`."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def bits(key: int, counters: np.ndarray | int) -> np.ndarray:
    """64 random bits, uint64, of each counter (the finalizer of SplitMix64 over key + counter, twice)."""
    x = np.asarray(counters).astype(np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        for _ in range(2):
            x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
    return x


def below(key: int, counters: np.ndarray | int, bounds: np.ndarray | int) -> np.ndarray:
    """For each counter an int64 drawn uniformly from [0, bound); bounds are at least 1 and below 2^32."""
    return (((bits(key, counters) >> np.uint64(32)) * np.asarray(bounds, np.uint64)) >> np.uint64(32)).astype(np.int64)


def permutation(key: int, n: int) -> np.ndarray:
    """A random order, int32, of 0..n-1; needs 12 bytes per number."""
    mask = np.uint64(0xFFFFFFFF)
    tagged = np.empty(n, np.uint64)
    for start in range(0, n, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, n), dtype=np.uint64)
        tagged[start : start + _CHUNK] = (bits(key, numbers) & ~mask) | numbers
    tagged.sort()
    tagged &= mask
    return tagged.astype(np.int32)
