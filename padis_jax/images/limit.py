"""How much memory a file may take once it is decoded: a few megabytes can hold, by their header, more than there is.

Every reader asks here with the sizes of the header, before it decodes; the commands set the limit (`--max-memory`).
"""

from __future__ import annotations

import re
from pathlib import Path

from padis_jax.devices.memory import available
from padis_jax.errors import UserError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_UNKNOWN = 2**32  # the limit in bytes where the machine does not tell its free memory
_given: int | None = None  # what the user set, for this process


def set_max_memory(size: str | int | None) -> None:
    """Sets the limit of this process.

    Args:
      size: bytes, or a number with K, M, G or T (powers of 1024) as "500M" or "1.5 GiB"; None or "" for half of the
        free memory.

    Raises:
      UserError: if it is none of these, or 0.
    """
    global _given
    if size is None or size == "":
        _given = None
        return
    parts = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgt]?)(?:i?b)?", str(size).strip().lower())
    value = int(float(parts[1]) * _UNITS[parts[2]]) if parts else 0
    if value < 1:
        raise UserError(
            f"--max-memory {str(size)[:40]!r}: give bytes, or a number with K, M, G or T, such as 500M or 8G"
        )
    _given = value


def max_memory() -> int:
    """The limit in bytes: what was set, or half of the memory that is free now."""
    if _given is not None:
        return _given
    try:
        return available() // 2
    except (OSError, ValueError):
        return _UNKNOWN


def is_given() -> bool:
    """Whether the user set the limit; bounds that only tell damage from plausible sizes do not hold then."""
    return _given is not None


def check_decoded_bytes(path: str | Path, nbytes: int, what: str = "") -> None:
    """Refuses what would take more memory than the limit, before anything of that size is made.

    Args:
      path: for the message.
      nbytes: bytes of the values that are in memory at once when decoded, in their stored type.
      what: their size, such as "13000x13000x3 of uint8", for the message.

    Raises:
      UserError: if that is more than `max_memory()`; the line has both numbers.
    """
    most = max_memory()
    if nbytes > most:
        origin, size = "--max-memory" if is_given() else "half of the free memory", f" ({what})" if what else ""
        raise UserError(
            f"{path}: takes {nbytes} bytes of memory when decoded{size}, over the limit of {most} ({origin}); if the "
            "file is right, allow more with --max-memory"
        )
