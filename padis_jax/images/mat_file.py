"""MATLAB 5 files: what is in them by their headers alone, and chosen variables, unpacked no further than these say.

SciPy reads the values. It would unpack whatever a damaged or hostile stream holds, so each variable is unpacked here
first, to at most the size that its header states, and SciPy gets a file without compression. Version 4 has none.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import scipy.io

from padis_jax.images.limit import check_decoded_bytes

_HEAD = 4096  # bytes of a variable that hold its class, shape and name
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_BYTES = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}  # of a value, by class
SPARSE = 5
_FULL = {"double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "logical"}
STRUCTURES = (1, 2, 3)  # cells, structures, objects
_TEXT = 4


class Variable(NamedTuple):
    """A variable by its header: `kind` is MATLAB's class, `numeric` whether it is a full array of real numbers.

    It takes `nbytes` when unpacked, `decoded` bytes as an array, and `stored` bytes of the file from `offset`.
    """

    name: str
    kind: int
    numeric: bool
    shape: tuple[int, ...]
    nbytes: int
    decoded: int
    offset: int
    stored: int
    compressed: bool


def list_variables(path: Path) -> list[Variable]:
    """The variables of a file of version 4 or 5, by their headers.

    Raises:
      ValueError, struct.error, zlib.error: for a damaged file.
    """
    with open(path, "rb") as handle:
        order = _order(handle.read(128))
        if order is None:
            found = scipy.io.whosmat(str(path), appendmat=False)
            size = path.stat().st_size
            return [
                Variable(name, SPARSE if kind == "sparse" else 6, kind in _FULL, tuple(shape), 0, 0, 0, size, False)
                for name, shape, kind in found
            ]  # the file holds every value, in full
        variables = []
        while len(tag := handle.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            start = handle.tell()
            head = handle.read(min(size, _HEAD))
            if kind == _COMPRESSED:
                head = zlib.decompressobj().decompress(head, _HEAD)
            elif kind == _MATRIX:
                head = tag + head
            if kind in (_COMPRESSED, _MATRIX):
                about = _described(head, order)
                if about is not None:
                    variables.append(about._replace(offset=start - 8, stored=size + 8, compressed=kind == _COMPRESSED))
            handle.seek(start + size)
    return variables


def load(path: Path, variables: Iterable[Variable], *, simplify: bool = False) -> dict[str, Any]:
    """name -> value, in the type of its class: MATLAB stores whole numbers and truth values in fewer bytes.

    Args:
      path: the file.
      variables: of `list_variables`.
      simplify: structures as dicts, and arrays without axes of length 1.

    Raises:
      UserError: if a variable takes more memory than the limit.
      Exception: whatever SciPy raises for a damaged file.
    """
    wanted = list(variables)
    for variable in wanted:
        shape = "x".join(str(n) for n in variable.shape)
        check_decoded_bytes(path, max(variable.nbytes, variable.decoded), f"{variable.name}, {shape}")
    with open(path, "rb") as handle:
        start = handle.read(128)
        source: str | io.BytesIO = str(path)
        if _order(start) is not None:
            source = io.BytesIO()
            source.write(start)
            for variable in wanted:
                source.write(_unpacked(handle, variable))
        names = [variable.name for variable in wanted]
        options = {"appendmat": False, "simplify_cells": simplify, "variable_names": names}
        if isinstance(source, io.BytesIO):
            source.seek(0)
        try:
            with warnings.catch_warnings(action="error", category=np.exceptions.ComplexWarning):
                return scipy.io.loadmat(source, mat_dtype=True, **options)
        except np.exceptions.ComplexWarning:  # it would leave out the imaginary part
            if isinstance(source, io.BytesIO):
                source.seek(0)
            return scipy.io.loadmat(source, mat_dtype=False, **options)


def _order(start: bytes) -> str | None:
    """The byte order of version 5, None for version 4."""
    return {b"IM": "<", b"MI": ">"}.get(start[126:128])


def _unpacked(handle: BinaryIO, variable: Variable) -> bytes:
    handle.seek(variable.offset)
    stored = handle.read(variable.stored)
    if not variable.compressed:
        return stored
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(stored[8:], variable.nbytes)
    if len(plain) < variable.nbytes:
        raise ValueError(f"{variable.name} is cut off")
    if not unpacker.eof and (unpacker.decompress(unpacker.unconsumed_tail, 1) or not unpacker.eof):
        raise ValueError(f"{variable.name} holds more than its header says")
    return plain


def _described(head: bytes, order: str) -> Variable | None:
    """A variable by the first bytes of its element; None for what has no name (MATLAB's own data)."""
    kind, size = struct.unpack_from(f"{order}II", head)
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} where a variable is expected")
    place, parts = 8, []
    for _ in range(3):  # flags, shape, name
        words = struct.unpack_from(f"{order}II", head, place)
        short = words[0] >> 16  # up to 4 bytes may stand in the tag itself
        length, begin = (short, place + 4) if short else (words[1], place + 8)
        if begin + length > len(head):
            raise ValueError("the header of a variable is longer than any that MATLAB writes")
        parts.append(head[begin : begin + length])
        place += 8 if short else 8 + -(-length // 8) * 8
    (flags,) = struct.unpack_from(f"{order}I", parts[0])
    shape = tuple(int(n) for n in np.frombuffer(parts[1], f"{order}i4"))
    name, number = parts[2].decode("latin-1"), flags & 0xFF
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has the shape {shape}")
    if number in _BYTES:
        # Shape and class say what the values take; they may be stored in a smaller type.
        most = place + 16 + 2 * (8 * math.prod(shape) + 16)
        if size > most:
            raise ValueError(f"{name} of shape {shape} declares {size} bytes")
    elif number not in (*STRUCTURES, _TEXT, SPARSE):
        return None
    numeric = number in _BYTES and not flags & 0x800  # complex
    decoded = _BYTES.get(number, 0) * math.prod(shape)
    return Variable(name, number, numeric, shape, size + 8, decoded, 0, 0, False) if name else None
