"""Operators that were built lately: an equal one costs a look-up, not another norm.

An operator is immutable, so that handing out the same one again changes nothing. At most 8 of each kind and 32 MB of
arrays in all are kept, and beyond that the newest of each kind if it has no more than 512 MB; `forget` lets go of them.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax

Build = TypeVar("Build", bound=Callable[..., Any])
COUNT, BYTES, LARGEST = 8, 2**25, 2**29
_tables: list[OrderedDict[Hashable, Any]] = []
_others: list[Callable[[], object]] = []  # what else is to be let go of


def kept(build: Build) -> Build:
    """A decorator for a function of hashable arguments whose results hold arrays."""
    table: OrderedDict[Hashable, Any] = OrderedDict()
    _tables.append(table)

    @functools.wraps(build)
    def found_or_built(*arguments: Hashable) -> Any:
        key = _key(arguments)
        if key in table and not _deleted(table[key]):
            table.move_to_end(key)
            return table[key]
        made = build(*arguments)
        leaves = jax.tree.leaves(made)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):  # built within a trace, of which they are parts
            return made
        table[key] = made
        while (
            len(table) > COUNT or (_bytes() > BYTES and len(table) > 1) or (len(table) == 1 and _size(made) > LARGEST)
        ):
            table.popitem(last=False)
        return made

    return found_or_built  # type: ignore[return-value]


def _key(arguments: tuple[Hashable, ...]) -> Hashable:
    return (*arguments, jax.config.read("jax_enable_x64"), str(getattr(jax.config, "jax_default_device", None)))


def _deleted(made: Any) -> bool:
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(made))


def forget() -> None:
    """Lets go of all operators that are kept, and of the solvers' loops over them.

    The programs that were compiled for them go by `jax.clear_caches()`, and with both what the functions of
    `from_functions` hold.
    """
    for table in _tables:
        table.clear()
    for clear in _others:
        clear()


def on_forget(clear: Callable[[], object]) -> None:
    """Has `forget` call this too."""
    _others.append(clear)


def _bytes() -> int:
    return sum(_size(made) for table in _tables for made in table.values())


def _size(made: Any) -> int:
    return sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(made))
