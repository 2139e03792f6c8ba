"""Flags from frozen dataclasses with tyro; a mistyped flag becomes one line that says what was meant."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import tyro

from padis_jax.devices.memory import Memory
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


class OutputOptions(NamedTuple):
    """How a program speaks; every program takes these flags.

    Attributes:
      dry_run: say what would be done and the memory it takes, and do nothing.
      estimate: with dry_run, compile and time one evaluation as well.
      json: print one JSON object on stdout, and nothing else there.
      quiet: print errors only.
      verbose: print more than usual.
    """

    dry_run: bool = False
    estimate: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def on_memory(self, memory: Memory) -> None:
        """Says what a solver's loop will take, before it runs."""
        if not (self.quiet or self.json):
            print(memory.text(), file=sys.stderr)


OUTPUT_HELP = """
Also, in every program:
    --dry-run     print the plan with an estimate of memory, and do nothing;  --estimate  also of time (compiles)
    --json        print one JSON object on stdout, for machines
    --quiet       print errors only;  --verbose  print more
Exit codes: 0 done, 2 a mistake in files or settings (one line on stderr), 130 interrupted by Ctrl-C.
"""


def split_output_options(args: Sequence[str]) -> tuple[OutputOptions, list[str]]:
    """(OutputOptions, the other arguments).

    Raises:
      UserError: for --quiet together with --verbose, and --estimate without --dry-run.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in OutputOptions._fields:
        own.add_argument("--" + name.replace("_", "-"), action="store_true")
    known, rest = own.parse_known_args(args)
    output = OutputOptions(**vars(known))
    if output.quiet and output.verbose:
        raise UserError("--quiet and --verbose contradict each other: give one of them")
    if output.estimate and not output.dry_run:
        raise UserError("--estimate times the plan of --dry-run: give both, or leave it out")
    return output, rest


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
    printed, description = io.StringIO(), description + OUTPUT_HELP
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
