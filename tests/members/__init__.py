"""Members of the kinds of faults, each with what is right: a value, one line of refusal, or either of them.

A module here makes the members of a kind, `judge` says what came of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REFUSED, EITHER = object(), object()  # one line; or a value, which `read` looks at itself
MEMORY, SECONDS = 128 * 2**20, 2.0  # bytes, and of the processor, that the refusal of a bomb may take


class Member(NamedTuple):
    """A case.

    Attributes:
      kind: of fault.
      name: of the case, within its kind.
      make: an empty folder -> the path that readers are given.
      read: path -> the values.
      right: these values, REFUSED or EITHER.
      refusable: one line of refusal is right too.
      command: path -> the program and its words that have to come to the same end.
      limit: `--max-memory` meanwhile, of a bomb.
    """

    kind: str
    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    right: Any
    refusable: bool = False
    command: Callable[[Path], list[str]] | None = None
    limit: str | None = None


def inspected(path: Path) -> list[str]:
    """The words by which padis-data looks at a path."""
    return ["data", "inspect", str(path), "--json"]


def written(data: bytes, name: str) -> Callable[[Path], Path]:
    """What makes a file of these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def difference(found: Any, right: Any) -> str:
    """How the values found differ from the right ones, beyond float32's rounding; "" if they do not."""
    found, right = np.asarray(found, np.float64), np.asarray(right, np.float64)
    if found.shape != right.shape:
        return f"shape {found.shape} instead of {right.shape}"
    off = np.abs(found - right)
    most = 1e-5 * max(1.0, float(np.abs(right).max(initial=0.0)))
    return "" if bool((off <= most).all()) else f"values differ by {off.max():g}"
