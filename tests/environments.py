"""How the programs of tests are compiled, and the environment of those that tests start."""

import importlib.metadata
import os

# Most programs run once or twice: to make them fast would cost more than all the rest. 0 makes them as users get them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_JAXLIB = tuple(int(number) for number in importlib.metadata.version("jaxlib").split(".")[:2])
_CHEAP = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0" and _JAXLIB < (0, 11)
# XLA's former code generator, which later versions do not have, takes half the time of the present one.
_FLAGS = "--xla_cpu_use_fusion_emitters=false" if _CHEAP else ""


def with_devices(count: int) -> dict[str, str]:
    """The environment with so many CPU devices. Of a flag that stands there already, the last one counts."""
    flags = [os.environ.get("XLA_FLAGS", ""), _FLAGS, f"--xla_force_host_platform_device_count={count}"]
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
