"""What stands between a file from elsewhere and the program: sizes are checked before memory is taken, and whatever a
decoder raises becomes one line that names the file.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from padis_jax.errors import UserError
from padis_jax.images.limit import check_decoded_bytes, is_given

for _name in ("nibabel", "nibabel.global", "pydicom", "tifffile"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # what they complain of becomes one line of ours

MAX_SLICE = 2**28  # values of one slice, 16384 x 16384: larger sizes are damage or malice
MAX_RATIO = 1100  # deflate, the strongest compression in these formats, does not exceed 1032 : 1


@contextlib.contextmanager
def decoding(path: str | Path, what: str) -> Iterator[None]:
    """Turns every exception of a decoder into a UserError; to be put around library calls on foreign bytes only.

    A library's own message is not passed on: it speaks to programmers ("use force=True"). Ours are.

    Decoders of medical and picture formats raise whatever they stumble over (struct.error, KeyError, RecursionError,
    AttributeError ...), so no shorter list of exceptions would be complete.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path}: this {what} does not fit into memory; is the file damaged?") from error
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); change its permissions") from error
    except Exception as error:
        where = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        reason = (
            error.strerror if isinstance(error, OSError) else str(error) if where.startswith("padis_jax.") else None
        )
        reason = f": {' '.join(reason.split())[:200]}" if reason else ", or of a kind that is not supported"
        raise UserError(f"{path}: not a readable {what}; it is damaged or truncated{reason}") from error


@contextlib.contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Silences a library's own logger, which would print beside our one line."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def library(module: str, extra: str, formats: str) -> Any:
    """Imports an optional library.

    Args:
      module: its import name.
      extra: the extra of this package that brings it.
      formats: what it is needed for, plural.

    Raises:
      UserError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{formats} need the library {module}, which is not installed: pip install {module} (the extra {extra!r} "
            "of padis_jax has it)"
        ) from error


def check_size(
    path: str | Path, shape: Sequence[int], itemsize: float, stored: int, *, compressed: bool = False
) -> None:
    """Refuses sizes in a header that the file cannot hold, before anything of that size is allocated.

    Args:
      path: for the message.
      shape: (N, H, W, C) as declared.
      itemsize: bytes per value as stored.
      stored: bytes of the file, or of the part that holds the values.
      compressed: whether `stored` is compressed.

    Raises:
      UserError: if no value is left, a slice is over the limit of --max-memory or, where the user set none, beyond
        MAX_SLICE values, or the values need more than is stored.
    """
    size = "x".join(str(n) for n in shape)
    if min(shape) < 1:
        raise UserError(f"{path}: its size is {size}, which has no values")
    values = math.prod(shape[1:])
    check_decoded_bytes(path, math.ceil(values * max(1, itemsize)), size)
    if values > MAX_SLICE and not is_given():
        raise UserError(
            f"{path}: declares a slice of {values} values ({size}), {math.ceil(values * max(1, itemsize))} bytes when "
            f"decoded; the limit is {MAX_SLICE} values unless --max-memory allows more"
        )
    needed = math.prod(shape) * itemsize
    if needed > stored * (MAX_RATIO if compressed else 1):
        raise UserError(
            f"{path}: declares {needed:.0f} bytes of values ({size}) but holds {stored}; truncated or damaged"
        )
