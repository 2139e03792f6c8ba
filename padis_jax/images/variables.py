"""Which of a file's arrays holds the images, by name or because there is only one; and what the file says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.source import Spacing


def choose(path: Path, arrays: Mapping[str, tuple[int, ...]], wanted: str | None, *, usual: str | None = None) -> str:
    """The name of the array of images.

    Args:
      path: the file, for messages.
      arrays: name -> shape of every numeric array in the file.
      wanted: the name that the user gave, or None.
      usual: a name that is taken without asking where it is there.

    Raises:
      UserError: if the wanted one is not there, none has two to four axes, or several have.
    """
    listed = ", ".join(f"{name} {shape}" for name, shape in list(arrays.items())[:8]) or "nothing"
    if wanted is not None:
        if wanted not in arrays:
            raise UserError(f"{path}: holds {listed}, but no array {wanted!r}")
        return wanted
    if usual is not None and usual in arrays:
        return usual
    # A set of one image has one axis of length 1, and a row of numbers has all but one.
    fitting = [name for name, shape in arrays.items() if 2 <= len(shape) <= 4 and sum(n > 1 for n in shape) > 1]
    if len(fitting) > 1:
        raise UserError(f"{path}: holds several arrays ({listed}); name one: {path}::{fitting[0]}")
    if not fitting:
        called = f" `{usual}`" if usual else ""
        raise UserError(f"{path}: holds {listed}, but no array{called} of images [slices, rows, columns]")
    return fitting[0]


def check_spacing(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses a `spacing` of this shape unless it has three numbers, before it is read."""
    if math.prod(shape) != 3:
        raise UserError(f"{path}: `spacing` has shape {shape}, expected three positive lengths in mm")


def as_spacing(path: Path, value: np.ndarray) -> Spacing:
    """Three positive lengths in mm: between slices, rows and columns."""
    value = np.asarray(value)
    lengths = value.ravel()
    if lengths.shape != (3,) or value.dtype.kind not in "fiu" or not (np.isfinite(lengths) & (lengths > 0.0)).all():
        raise UserError(f"{path}: `spacing` is {value.tolist()}, expected three positive lengths in mm")
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


def as_places(path: Path, value: object, count: int) -> tuple[float, ...]:
    """The places of `count` slices in mm, ascending, as the writers keep them."""
    places = np.asarray(value)
    numbers = places.dtype.kind in "fiu" and places.shape == (count,)
    if not numbers or not np.isfinite(places).all() or not (np.diff(places.astype(float)) > 0.0).all():
        raise UserError(f"{path}: `places` has shape {places.shape}, expected {count} ascending lengths in mm")
    return tuple(places.astype(float).tolist())


def rows_run_up(affine: object) -> bool:
    """Whether rows run to the front, by an affine [4, 4] of (column, row, slice, 1), as the writers keep it."""
    found = np.asarray(affine)
    if found.shape != (4, 4) or found.dtype.kind not in "fiu":
        return False
    return bool(found[1, 1] > 0.5 * np.linalg.norm(found[:3, 1]))


def as_text(value: object) -> str:
    """A text as files keep it: of characters or of bytes, alone or the first of an array."""
    first = value if isinstance(value, (str, bytes)) else next(iter(np.asarray(value).ravel()[:1].tolist()), "")
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def as_unit(path: Path, value: object) -> str:
    """The name of a unit: a short text."""
    text = as_text(value)
    if not 0 < len(text) <= 32 or not text.isprintable():
        raise UserError(f"{path}: `unit` is {text[:40]!r}, expected a short text such as HU")
    return text
