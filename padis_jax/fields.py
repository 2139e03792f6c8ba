"""Settings that are what their annotations say: one check for the fields of every settings dataclass.

    int                whole, of at most 64 bits
    float              a finite number, of a size whose square is finite in float32; infinite where the default is
    bool, str          one
    Literal[...]       one of these
    X | None, X | Y    any of these
    tuple[X, ...]      each of them
    a dataclass        an instance of it, whose fields are looked at, too

Arrays are looked at where they hold values, not while tracing. Fields of other types are not looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.errors import UserError

LARGEST = 1e15  # of a number in float32 computing, where norms and squares are taken


def check_fields(settings: Any, prefix: str = "") -> None:
    """Refuses the first field that is not of its type, of the dataclasses within too; lists become tuples.

    Args:
      settings: an instance of a dataclass.
      prefix: of a field's name in the message, such as "scan.".

    Raises:
      UserError: with the field, its value and what it must be.
    """
    kind: Any = type(settings)
    for field, hint in _hints(kind):
        value = getattr(settings, field.name)
        if wanted := _wanted(hint, value, infinite=isinstance(field.default, float) and math.isinf(field.default)):
            raise UserError(f"{prefix}{field.name} is {_short(value)}: {wanted}")
        if isinstance(value, list) and tuple in [
            typing.get_origin(h) for h in (hint, *typing.get_args(hint))
        ]:  # to be hashed
            object.__setattr__(settings, field.name, tuple(value))
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{prefix}{field.name}.")


def single(array: ArrayLike) -> Array:
    """The array in float32, or in complex64 where it is complex: what is computed in, in JAX's 64-bit mode too."""
    kind = np.complex64 if jnp.iscomplexobj(array) else np.float32
    if isinstance(array, (np.ndarray, np.generic)):
        with np.errstate(over="ignore"):
            array = array.astype(kind)  # JAX would compile a conversion
    return jnp.asarray(array, kind)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is no whole number, less than `least` or beyond 10^6 (UserError)."""
    if (wanted := _wanted(int, value)) or not least <= value <= 10**6:
        raise UserError(f"{name} is {_short(value)}: {wanted or f'use at least {least}, and at most 10^6'}")


def check_real(name: str, value: Any) -> None:
    """Refuses what is no real number, nor an array of one (UserError)."""
    array = getattr(value, "shape", None) == () and jnp.issubdtype(value.dtype, jnp.floating)
    if isinstance(value, (bool, np.bool_)) or not (array or isinstance(value, numbers.Real)):
        raise UserError(f"{name} is {_short(value)}: it must be a number")


def check_length(name: str, mm: float, least: float = 0.0) -> None:
    """Refuses a length, of either sign, that no scan and no pixel has: below `least` and not 0, or beyond 1e9 mm.

    Raises:
      UserError: naming it.
    """
    if mm and not least <= abs(mm) <= 1e9:
        raise UserError(f"{name} is {mm:g}: give a length in mm, between {least:g} and 1e+09")


@functools.cache
def _hints(kind: type) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(kind))


def _wanted(hint: Any, value: Any, *, infinite: bool = False) -> str:
    """What a value must be that is not what its annotation says; "" if it is."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        found = [_wanted(option, value, infinite=infinite) for option in options if option is not types.NoneType]
        return "" if (value is None and types.NoneType in options) or "" in found else found[0]
    if origin is Literal:
        chosen = any(type(value) is type(option) and value == option for option in options)
        return "" if chosen else f"use one of {', '.join(map(str, options))}"
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return "it must be a list"
        kinds = options[:1] * len(value) if options[-1] is Ellipsis else options
        each = [_wanted(kind, item) for kind, item in zip(kinds, value, strict=False)]
        return next(filter(None, each), "" if len(kinds) == len(value) else f"it must have {len(kinds)} entries")
    if dataclasses.is_dataclass(hint):
        return "" if isinstance(value, hint) else f"it must be a {hint.__name__}"  # type: ignore[arg-type, union-attr]
    if hint is Array:
        return "" if _of_numbers(value) and _finite(value, infinite) else "it must be an array of finite numbers"
    if hint is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
        return "" if whole and -(2**63) <= value < 2**64 else "it must be a whole number of at most 64 bits"
    if hint is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
        good = real and (abs(value) <= LARGEST or (infinite and abs(value) == math.inf))
        return "" if good else f"it must be a finite number, at most {LARGEST:g}"
    if hint is bool:
        return "" if isinstance(value, (bool, np.bool_)) else "it must be True or False"
    return "it must be a text" if hint is str and not isinstance(value, str) else ""


def _of_numbers(value: Any) -> bool:
    """Whether it may be an array, or what JAX passes instead of one."""
    return not isinstance(value, (str, bytes, bool, complex, list, types.NoneType, numbers.Real))


def _finite(value: Any, infinite: bool) -> bool:
    """Whether the values are; True for what has none to look at."""
    if isinstance(value, jax.core.Tracer) or not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return True
    if value.dtype.kind not in "iuf":
        return value.dtype.kind != "c"  # what JAX passes instead, and the small floats of ml_dtypes
    size = np.abs(np.asarray(value))
    return bool(np.all((size <= LARGEST) | (infinite & np.isinf(size))))


def _short(value: Any) -> str:
    text = " ".join((repr(value) if isinstance(value, str) else str(value)).split())
    return text if len(text) <= 60 else f"{text[:56]} ..."
