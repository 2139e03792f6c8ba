"""Memory: what the compiler estimates for a program, what a device has left, what this process has taken."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import re
import sys
from pathlib import Path
from typing import Any

import jax

from padis_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Memory:
    """What XLA estimates for one call of a compiled program, in bytes.

    Attributes:
      temporary: buffers that live during the call.
      arguments: what it is given.
      results: what it returns.
      given: of the results, what lies where arguments were that the call was given to keep.
    """

    temporary: int
    arguments: int
    results: int
    given: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.added

    @property
    def added(self) -> int:
        """What the call adds to what is there before it."""
        return self.temporary + self.results - self.given

    def text(self) -> str:
        """For people."""
        return (
            f"{self.total / 2**20:.0f} MiB of memory estimated: {self.arguments / 2**20:.0f} for parameters and data, "
            f"{self.added / 2**20:.0f} for the computation"
        )


def analysed(compiled: Any) -> Memory:
    """The analysis of a compiled program (`jax.jit(f).lower(...).compile()`).

    Raises:
      UserError: where the backend has none.
    """
    found = compiled.memory_analysis()
    if found is None:
        raise UserError("this backend does not tell the memory of a program: give --patch-batch a number")
    sizes = (found.temp_size_in_bytes, found.argument_size_in_bytes, found.output_size_in_bytes)
    return Memory(*sizes, found.alias_size_in_bytes)


def free_memory() -> int:
    """Bytes that the first device of this process can still hold; for the CPU, what the machine has available."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        return available()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"the free memory of {device.device_kind} is not known here ({error}): give --patch-batch a number"
        ) from error


class Growth:
    """Measures by how many bytes the peak of this process's resident set exceeds what it held when this was made.

    What earlier work has left free in the allocator is given back first, and the recorded peak is reset (Linux).
    """

    def __init__(self) -> None:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as handle:
            handle.write("5")
        self.before = _status("VmRSS")

    def __call__(self) -> int:
        """The growth until now."""
        return _status("VmHWM") - self.before


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def available() -> int:
    """Bytes of the machine's memory that can still be taken, or of the container's where that has less (Linux)."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    free = found.get("MemAvailable", found.get("MemFree", 0))
    group = Path("/sys/fs/cgroup")
    try:
        most, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        files = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free
    return max(0, min(free, most - taken + (int(files[1]) if files else 0)))
