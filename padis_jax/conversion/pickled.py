"""Reads a pickle as data: the stack machine without its ability to import and call.

A pickle is a program; loading one the ordinary way imports any name and calls it with any arguments. Here the standard
library's `pickletools` only splits the bytes into opcodes, and what the opcodes mean is written below: lists, dicts,
numbers and texts are built, a name is looked up in a table that the caller gives, and a call goes to that table's
function of ours. Any other name ends the reading. Opcodes, stored objects and time are limited, so that a hostile file
ends in one line as well. (Subclassing `pickle.Unpickler` would leave the memo's size to the file.)
"""

from __future__ import annotations

import dataclasses
import pickletools
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

Call = Callable[[tuple[Any, ...]], Any]

_PUSHED = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8".split()
)
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bytes, type(None))  # hashing a tuple of tuples of tuples can take for ever


class Vocabulary(NamedTuple):
    """What a pickle may name. A name is its module and its own name, with a space between.

    Attributes:
      calls: name -> our function of the tuple of arguments. An object that it returns may have a method `build(state)`,
        for what the pickle sets afterwards.
      names: classes that may be mentioned and not called.
      persistent: our function of a persistent id (PyTorch's reference to a storage), or None to refuse those.
    """

    calls: Mapping[str, Call]
    names: frozenset[str] = frozenset()
    persistent: Callable[[Any], Any] | None = None


class Global(NamedTuple):
    """A name that a pickle mentions; no object stands behind it."""

    name: str


@dataclasses.dataclass
class Budget:
    """What is left to spend, over all pickles of a file.

    Attributes:
      opcodes: steps of the machine, and so objects too.
      seconds: time from the making of this budget.
    """

    opcodes: int = 2_000_000
    seconds: float = 60.0

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds

    def spend(self) -> None:
        """Counts one opcode; raises ValueError if that was one too many."""
        self.opcodes -= 1
        if self.opcodes < 0:
            raise ValueError("the pickle is longer than any network needs (too many opcodes); refused")
        if self.opcodes % 256 == 0 and time.monotonic() > self._end:
            raise ValueError(f"the pickle was not read within {self.seconds:g} s; refused")


def read_pickle(file: BinaryIO, vocabulary: Vocabulary, budget: Budget) -> Any:
    """The value of the pickle at the file's position, which is left after its end. Nothing in it is executed.

    Args:
      file: must return what is there where more is asked for, without allocating the rest (`mmap`, `io.BytesIO`).
      vocabulary: the names that may occur.
      budget: limits.

    Returns:
      Numbers, texts, bytes, lists, tuples, dicts, sets, `Global`, and what the calls of the vocabulary return.

    Raises:
      ValueError: for a name that is not in the vocabulary, a pickle that is damaged, or one that exceeds the budget.
    """
    machine = _Machine(vocabulary)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            budget.spend()
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError, RecursionError) as error:
        raise ValueError(f"the pickle is damaged: {type(error).__name__}: {str(error)[:80]}") from error
    raise ValueError("the pickle is truncated: it has no end")


class _Machine:
    """Stack, marks and memo."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise ValueError("the pickle is damaged: it takes more from its stack than it put there")
        return self.stack.pop()

    def items(self) -> list[Any]:
        """What lies above the newest mark, which goes with it."""
        if not self.marks:
            raise ValueError("the pickle is damaged: it has no mark where it needs one")
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def step(self, name: str, argument: Any) -> None:
        """Carries out one opcode."""
        if name in _PUSHED:
            if isinstance(argument, int) and argument.bit_length() > 128:
                raise ValueError("the pickle holds an integer of more than 128 bits; refused")
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            if argument not in self.memo:
                raise ValueError(f"the pickle is damaged: it refers to object {argument}, which it has not stored")
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _TUPLES:
            self.stack.append(tuple(self.pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "TUPLE":
            self.stack.append(tuple(self.items()))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.mention(argument)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            self.stack.append(self.call(function, arguments))
        elif name in ("PERSID", "BINPERSID"):
            if self.vocabulary.persistent is None or name == "PERSID":
                raise ValueError("the pickle refers to data outside of it (persistent id); refused")
            self.stack.append(self.vocabulary.persistent(self.pop()))
        elif name in ("PROTO", "FRAME"):
            pass  # hints for reading ahead
        elif name in ("POP", "POP_MARK"):
            self.pop() if name == "POP" else self.items()
        else:
            self.fill(name)

    def fill(self, name: str) -> None:
        """Opcodes that put items into the object below them."""
        if name not in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"):
            raise ValueError(f"the pickle uses the opcode {name}, which no checkpoint needs; refused")
        many = name.endswith("S")
        items = self.items() if many else [self.pop() for _ in range(2 if name == "SETITEM" else 1)][::-1]
        target = self.stack[-1]
        if name in ("APPEND", "APPENDS") and type(target) is list:
            target.extend(items)
        elif name in ("SETITEM", "SETITEMS") and type(target) is dict and len(items) % 2 == 0:
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_hashable(key)] = value
        elif name == "ADDITEMS" and type(target) is set:
            target.update(map(_hashable, items))
        elif name == "BUILD" and type(target) is dict:
            pass  # attributes of a dict, such as the version numbers in a state dict
        elif name == "BUILD" and hasattr(target, "build"):
            target.build(items[0])
        else:
            raise ValueError(f"the pickle is damaged: {name} on {type(target).__name__}")

    def mention(self, argument: str | None) -> None:
        """Puts a name on the stack, if it is known."""
        if argument is None:
            own, module = self.pop(), self.pop()
            if type(own) is not str or type(module) is not str:
                raise ValueError("the pickle is damaged: a name that is not text")
            argument = f"{module} {own}"
        if argument not in self.vocabulary.calls and argument not in self.vocabulary.names:
            raise ValueError(
                f"the pickle names {argument.replace(' ', '.')[:120]!r}, which is none of the few names that rebuild "
                "tensors; refused, and nothing in the file was run"
            )
        self.stack.append(Global(argument))

    def call(self, function: Any, arguments: Any) -> Any:
        """The vocabulary's own function of the arguments."""
        if type(function) is not Global or function.name not in self.vocabulary.calls:
            what = function.name.replace(" ", ".") if type(function) is Global else type(function).__name__
            raise ValueError(f"the pickle calls {what!r}, which may not be called; refused, and nothing was run")
        if type(arguments) is not tuple:
            raise ValueError(f"the pickle is damaged: the arguments of {function.name!r} are not a tuple")
        return self.vocabulary.calls[function.name](arguments)


def _hashable(key: Any) -> Any:
    if not isinstance(key, _KEYS):
        raise ValueError(f"the pickle is damaged: a key is of type {type(key).__name__}")
    return key
