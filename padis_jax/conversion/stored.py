"""Networks in safetensors files: what the header says is held against the config before an array is read.

A file is a JSON header (name -> type, shape, place; and our metadata) and the arrays. Nothing in it is executed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors
from flax.traverse_util import unflatten_dict

from padis_jax.errors import UserError, cut, quoted
from padis_jax.unet import Params

MAX_PARAMETERS = 2**31
MAX_HEADER = 2**22  # bytes; it takes many times as much memory, and that of thousands of arrays has a tenth


class Stored(NamedTuple):
    """The header of a file: texts by name, and shapes and types of the arrays."""

    path: Path
    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]


def read_header(path: str | Path, missing: str) -> Stored:
    """Opens a file; no array is read.

    Raises:
      UserError: for a file that is not there (`missing` says what to do then), or damaged.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("a folder, or no regular file")  # a pipe would be waited for
        with open(path, "rb") as handle:
            if (size := int.from_bytes(handle.read(8), "little")) > MAX_HEADER:
                raise OSError(f"it says that its header has {size} bytes, more than {MAX_HEADER}")
        with safetensors.safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            types = {name: str(part.get_dtype()) for name, part in slices.items()}
            return Stored(Path(path), file.metadata() or {}, shapes, types)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {missing}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file (damaged or truncated): {cut(error)}") from error


def read_params(stored: Stored, expected: Mapping[str, tuple[int, ...]], types: tuple[str, ...]) -> Params:
    """The parameters, float32, once the header has exactly the expected arrays in one of the types ("F32", "F16").

    Raises:
      UserError: naming the first array that differs, or is not finite.
    """
    check_shapes(stored.shapes, expected, f"{stored.path}: array ", "the network in its metadata needs")
    allowed = " or ".join(map(_type, types))
    for name, kind in stored.types.items():
        if kind not in types:
            raise UserError(f"{stored.path}: array {quoted(name)[1:-1]} is {_type(kind)}, expected {allowed}")
    if sum(map(math.prod, expected.values())) > MAX_PARAMETERS:
        raise UserError(f"{stored.path}: more than {MAX_PARAMETERS} parameters; refused")
    with safetensors.safe_open(stored.path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in stored.shapes}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{stored.path}: array {name} holds NaN or infinity, expected finite {allowed} numbers; the training "
                "that wrote it went wrong"
            )
    single = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
    return jax.device_put(unflatten_dict(single, sep="."))  # compiles nothing, as jnp.asarray does for every shape


def check_shapes(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    where: str,
    needs: str,
    absent: str = "nothing",
) -> None:
    """UserError, which names the first array that is missing, too much, or of another shape."""
    for name in sorted(expected.keys() | found.keys()):
        is_, wanted = found.get(name, absent), expected.get(name, "nothing")
        if is_ != wanted:
            raise UserError(f"{where}{quoted(name)[1:-1]} is {cut(is_, 80)}, but {needs} {cut(wanted, 80)}")


def _type(code: str) -> str:
    return cut(code, 20).replace("BF", "bfloat").replace("F", "float")
