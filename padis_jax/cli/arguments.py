"""Flags from frozen dataclasses with tyro; a mistyped flag becomes one line that says what was meant."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import tyro

import padis_jax
from padis_jax.cli.help_text import Page, attributes, flag, table
from padis_jax.devices import compile_cache
from padis_jax.devices.memory import Memory
from padis_jax.errors import UserError
from padis_jax.images.limit import set_max_memory

T = TypeVar("T")


def split_args(args: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """(--config, --workdir, the other arguments), for train and sample.

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


def refuse_empty(args: Sequence[str], kind: type | None = None) -> None:
    """Refuses flags with an empty value: an unset variable of the shell, which would mean the current folder.

    Args:
      args: command-line arguments.
      kind: the dataclass that they make; where its help says what "" stands for, it may be given.

    Raises:
      UserError: naming the flag.
    """
    told = {flag(name) for name, text in attributes(kind).items() if '"" for' in text} if kind else set()
    of = "an argument"
    for word in args:
        name, equals, value = word.partition("=")
        own = word.startswith("--")
        of = name if own else of
        if not (value if own and equals else word).strip() and of not in told:
            raise UserError(f"{of}: its value is empty; give one, or leave it out")


VERSION = ("--version", "print the versions of padis_jax and jax")


class OutputOptions(NamedTuple):
    """How a program speaks; every program takes these flags.

    Attributes:
      dry_run: print what would be done, and do nothing; sample and train also estimate the memory.
      estimate: with --dry-run of sample and train: also compile and time one evaluation.
      json: print one JSON object on stdout, and nothing else there.
      quiet: print errors only.
      verbose: print more than usual.
      max_memory: what a file may take when decoded, such as 8G (default: half of the free memory).
      no_compile_cache: neither use nor keep compiled programs (devices/compile_cache.py).
      no_lock: let other runs into the folder; for a bucket or file system that cannot hold the lock.
    """

    dry_run: bool = False
    estimate: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    max_memory: str = ""
    no_compile_cache: bool = False
    no_lock: bool = False

    @property
    def silent(self) -> bool:
        """Whether nothing but errors, or JSON, may be printed."""
        return self.quiet or self.json

    def on_memory(self, memory: Memory) -> None:
        """Says what a solver's loop will take, before it runs."""
        if not self.silent:
            print(memory.text(), file=sys.stderr)


def once(report: Callable[[Memory], None]) -> Callable[[Memory], None]:
    """`report` of the first of several loops that are one program; the others say nothing."""
    told: list[Memory] = []

    def first(memory: Memory) -> None:
        if not told:
            report(memory)
        told.append(memory)

    return first


OUTPUT_HELP = [
    *table([*((flag(name), text) for name, text in attributes(OutputOptions).items()), VERSION]),
    "Exit codes: 0 done, 2 a mistake in files or settings (a line on stderr), 130 Ctrl-C, 143 SIGTERM.",
]
RARE = ("--version", "--max-memory", "--no-compile-cache", "--no-lock")  # in --help-all only


def split_output_options(args: Sequence[str], page: Page | None = None) -> tuple[OutputOptions, list[str]]:
    """(OutputOptions, the other arguments).

    Args:
      args: command-line arguments.
      page: what --help shows; None leaves --help to `parse`.

    Raises:
      UserError: for --quiet together with --verbose, --estimate without --dry-run, a --max-memory that is no size, and
        what `refuse_empty` refuses.
      SystemExit: with code 0 after --help or --version.
    """
    if "--version" in args:
        print(f"padis_jax {padis_jax.__version__}, jax {jax.__version__}")
        raise SystemExit(0)
    if page is not None and {"-h", "--help"} & set(args):
        print(page.short([line for line in OUTPUT_HELP if not line.lstrip().startswith(RARE)]))
        raise SystemExit(0)
    refuse_empty(args, page and page.kind)
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in OutputOptions._field_defaults.items():
        own.add_argument(flag(name), action="store" if name == "max_memory" else "store_true", default=default)
    try:
        known, rest = own.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    output = OutputOptions(**vars(known))
    set_max_memory(output.max_memory)
    if output.quiet and output.verbose:
        raise UserError("--quiet and --verbose contradict each other: give one of them")
    if output.estimate and not output.dry_run:
        raise UserError("--estimate times the plan of --dry-run: give both, or leave it out")
    (compile_cache.off if output.no_compile_cache else compile_cache.use)()
    return output, rest


def parse(kind: type[T], args: Sequence[str], *, default: T, prog: str, description: str) -> T:
    """The dataclass `kind` from command-line arguments.

    Args:
      kind: a frozen dataclass that validates itself; its docstring is the help text of its fields.
      args: the arguments, without the program's name.
      default: values of the fields that are not named.
      prog: how the program was called.
      description: text above the help.

    Raises:
      UserError: for unknown flags and bad values.
      SystemExit: with code 0 after `--help` or `--help-all`.
    """
    printed, description = io.StringIO(), "\n".join([description, "", *OUTPUT_HELP[:-1], "", OUTPUT_HELP[-1]])
    args = ["--help" if word == "--help-all" else word for word in args]
    try:
        if {"-h", "--help"} & set(args):
            with contextlib.redirect_stdout(getattr(sys.stdout, "stream", sys.stdout)):  # which may have colours
                return tyro.cli(kind, args=args, prog=prog, description=description, default=default)
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return tyro.cli(kind, args=args, prog=prog, description=description, default=default)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = re.sub(r"\x1b\[[0-9;]*m|\[/?bold\]|[│╭╮╰╯─┃]|-{4,}", " ", printed.getvalue())
        text = re.sub(r"(?i)^(.+) \1", r"\1", " ".join(text.split()))  # tyro's heading says what its first words say
        text = re.sub(r"^Value error (Error parsing \S+: )?|\s*For full helptext.*$", "", text)
        text = re.sub(r"^no type matching .*? from (\[.*?\])\. Got errors.*(?= Argument helptext:)", r"got \1", text)
        text = text.replace(" Argument helptext: ", " for ")
        raise UserError(f"{prog}: {text}") from None
