"""JSON from files, and frozen dataclasses from it: every unknown, missing or mistyped field is refused by its name.

What a hostile file could make endless is bounded: nesting, digits, texts and lists. Values are cut in messages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from padis_jax.errors import UserError, cut, quoted

T = TypeVar("T")
MAX_TEXT, MAX_ENTRIES = 2**22, 2**20
MAX_DEPTH = 200  # weights made from weights made from weights ... hold the provenance of all of them


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Raises:
      UserError: if it is none, longer than 4 MiB, nested deeper than 200, names a field of an object twice, or holds a
        number of thousands of digits.
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise UserError(
                    f"{where}: {cut(name, 40)} is there twice, as {cut(found[name], 40)} and {cut(value, 40)}"
                )
            found[name] = value
        return found

    if len(text) > MAX_TEXT:
        raise UserError(f"{where} has {len(text)} characters, more than {MAX_TEXT}; is this the right file?")
    try:
        value = json.loads(text, object_pairs_hook=fields)
    except RecursionError as error:
        raise UserError(f"{where} is not JSON: nested too deeply") from error
    except UserError:
        raise
    except ValueError as error:
        reason = f"a number of more than {sys.get_int_max_str_digits()} digits"
        raise UserError(
            f"{where} is not JSON: {cut(error, 100) if isinstance(error, json.JSONDecodeError) else reason}"
        ) from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [c for v in level for c in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())]
    if level:
        raise UserError(f"{where} is nested deeper than {MAX_DEPTH}; refused")
    return value


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
        raise UserError(f"{where}: unknown field {quoted(unknown[0])}; known fields: {', '.join(sorted(hints))}")
    defaults = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [f.name for f in dataclasses.fields(kind) if f.init and (f.default, f.default_factory) == defaults]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in value]:
        raise UserError(f"{where}: {missing[0]} is missing: add it")
    arguments = {name: _convert(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {cut(error)}") from error


def _encodes(text: str) -> bool:
    """Whether a path or a terminal can take it: no zero bytes, no halves of a character."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        for other in options[1:]:
            with contextlib.suppress(UserError):
                return _convert(other, value, where)
        return _convert(options[0], value, where)  # last, since its refusal is the one that is told
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise UserError(f"{where} is {quoted(value)}: use one of {arguments}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} is {quoted(value)}: expected a list")
        if len(value) > MAX_ENTRIES:
            raise UserError(f"{where} has {len(value)} entries, more than {MAX_ENTRIES}; refused")
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise UserError(f"{where} has {len(value)} entries: expected {len(kinds)}")
        return tuple(_convert(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, value, strict=True)))
    if isinstance(value, int) and value.bit_length() > 64:
        raise UserError(f"{where} is {quoted(value)}: a number of more than 64 bits; refused")
    if isinstance(value, str) and not _encodes(value):
        raise UserError(f"{where} is {quoted(value)}: a text that no system can write; refused")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise UserError(f"{where} is {quoted(value)}: expected {hint.__name__}")
    return value
