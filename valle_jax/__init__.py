"""VALL-E and VALL-E 2 in JAX/Flax."""

from valle_jax.version import __version__

__all__ = ["__version__"]
