"""Flags from frozen dataclasses with tyro; a mistyped flag becomes one line that says what was meant."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from padis_jax.errors import UserError

T = TypeVar("T")


def split_args(args: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """(--config, --workdir, the other arguments), which both programs take beside the flags of their dataclass.

    Raises:
      UserError: if one of the two has no value.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--config")
    own.add_argument("--workdir")
    try:
        known, rest = own.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    return known.config, known.workdir, rest


def parse(kind: type[T], args: Sequence[str], *, default: T, prog: str, description: str) -> T:
    """The dataclass `kind` from command-line arguments.

    Args:
      kind: a frozen dataclass that validates itself; its docstring is the help text of its fields.
      args: the arguments, without the program's name.
      default: values of the fields that are not named.
      prog: name of the program in the help text.
      description: text above the help.

    Raises:
      UserError: for unknown flags and bad values.
      SystemExit: with code 0 after `--help`.
    """
    printed = io.StringIO()
    try:
        if {"-h", "--help"} & set(args):
            return tyro.cli(kind, args=list(args), prog=prog, description=description, default=default)
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return tyro.cli(kind, args=list(args), prog=prog, description=description, default=default)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─┃]|-{4,}", " ", printed.getvalue())
        raise UserError(f"{prog.split()[0]}: {' '.join(text.split())}") from None
