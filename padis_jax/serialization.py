"""Frozen dataclasses from the JSON of their fields: every unknown, missing or mistyped field is refused by its name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from padis_jax.errors import UserError

T = TypeVar("T")


def from_json(kind: type[T], value: Any, where: str = "config") -> T:
    """Rebuilds a (nested) frozen dataclass from the JSON that `dataclasses.asdict` gave.

    Args:
      kind: the dataclass.
      value: nested mappings and lists.
      where: dotted name for messages.

    Raises:
      UserError: for an unknown field, a missing mapping, a value of the wrong type or out of range.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected fields, got {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(value) - set(hints)):
        raise UserError(f"{where}: unknown field {unknown[0]!r}; known fields: {', '.join(sorted(hints))}")
    arguments = {name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where} is {value!r}: use one of {arguments}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} is {value!r}: expected a list")
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise UserError(f"{where} has {len(value)} entries: expected {len(kinds)}")
        return tuple(_convert(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, value, strict=True)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise UserError(f"{where} is {value!r}: expected {hint.__name__}")
    return value
