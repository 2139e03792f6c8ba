"""Mistakes of a script's user, and how a script reports them: one line on stderr and an exit code, no traceback."""

from __future__ import annotations

import contextlib
import os
import reprlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class UserError(ValueError):
    """A mistake that the user can fix: a file, a folder, a config field. The message names it, and the remedy."""


_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = _QUOTES.maxlong = 60
_QUOTES.maxlevel = 2


def quoted(value: Any) -> str:
    """A value from a file as a message quotes it: some 60 characters of it, on one line, control characters escaped."""
    return _QUOTES.repr(value)[:100]


def cut(text: object, length: int = 300) -> str:
    """A text on one line, cut to `length` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 4]} ..."


def reason(error: BaseException, length: int = 200) -> str:
    """What an exception of a library says, on one line of at most `length` characters; its type if it says nothing."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def check_path(name: str, value: object) -> None:
    """Raises UserError for what is neither a text nor a path."""
    if not isinstance(value, (str, os.PathLike)):
        raise UserError(f"{name} is a {type(value).__name__}: give a path, as a text or a pathlib.Path")


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters, and bytes of names that are no UTF-8, as escapes; those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class Printable:
    """A text stream in front of another: a file's name cannot move the cursor, colour the terminal or end the program.

    Attributes:
      stream: the one behind it, for text that is meant to have colours.
    """

    def __init__(self, stream: TextIO, keep: str) -> None:
        self.stream, self._keep = stream, keep

    def write(self, text: str) -> int:
        """As of any text stream."""
        return self.stream.write(printable(text, self._keep))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """What is refused within, by a ValueError, becomes a UserError with the same text."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _leave(message: str, code: int) -> SystemExit:
    if sys.stderr is not None:
        print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    return SystemExit(code)


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Wraps a script's main, as `with one_line_errors():` or as a decorator `@one_line_errors()`.

    A UserError, or an OSError such as a full disk or a missing permission, becomes `error: ...` on stderr and exit code
    2; Ctrl-C becomes exit code 130, with the text of the KeyboardInterrupt if it has one (what is finished, how to
    resume). Any other exception is a defect of the program and keeps its traceback. Whatever is printed meanwhile goes
    through `printable`; bars keep their carriage returns. A stream that is closed takes all and shows nothing; where
    nobody reads any more (`| head`), the program ends without a word, with exit code 141.
    """
    out: Any = Printable(sys.stdout or _nowhere(), "\n\t")
    err: Any = Printable(sys.stderr or _nowhere(), "\n\t\r")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
            out.flush()
    except BrokenPipeError as error:
        with contextlib.suppress(OSError):
            os.dup2(_nowhere().fileno(), out.fileno())  # what is left is flushed as the program ends
        raise SystemExit(141) from error
    except UserError as error:
        raise _leave(str(error), 2) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise _leave(f"{where}{error.strerror or error}", 2) from error
    except KeyboardInterrupt as error:
        raise _leave(str(error) or "interrupted", 130) from error
