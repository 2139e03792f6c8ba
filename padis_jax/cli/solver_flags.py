"""The flags of sample.py: those of `Experiment`, and --solver NAME with the fields of that method as --solver.FIELD.

tyro reads both in one pass from a dataclass that is made for the method. Which fields were set follows from the words
of the command line, so that what is not set stays the preset's.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any

from jax import Array

from padis_jax.cli.arguments import parse
from padis_jax.cli.help_text import WIDTH, attributes, table
from padis_jax.errors import UserError
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.config import LIKE, OWN, Experiment, default_method
from padis_jax.runs.defaults import kind_named, plan_of
from padis_jax.runs.solver_config import RENAMED, RUN_FIELDS, SolverConfig
from padis_jax.runs.unused import check_passed_over
from padis_jax.solvers.registry import METHODS, Method

_FIELD = re.compile(r"--solver[._](?P<no>no-)?(?P<field>[A-Za-z_-]+)(?P<value>=.*)?$")


def parse_experiment(args: Sequence[str], *, default: Experiment, prog: str, description: str) -> Experiment:
    """The experiment that flags make of `default`.

    Raises:
      UserError: for unknown flags and bad values.
      SystemExit: with code 0 after `--help` or `--help-all`.
    """
    words, named = _method(_current(args))
    method = named or default.solver.method or _default(words, default)
    if method not in METHODS:
        raise UserError(f"--solver {method}: there is no such solver; choose one of {', '.join(METHODS)}")
    row = METHODS[method]
    given = _given(words, method)
    same = method == default.solver.method or not default.solver.method
    before = dataclasses.replace(default.solver, method=method, settings=default.solver.settings if same else {})
    if not same and default.solver.settings:
        left = ", ".join(default.solver.settings)
        print(
            f"note: --solver {method}: the config's {left} are of {default.solver.method} and not used", file=sys.stderr
        )
    flags = _flags(row)
    plan = plan_of(dataclasses.replace(default, solver=SolverConfig(method)), kind_named(default))
    values = dataclasses.asdict(plan.settings) | plan._asdict() | before.run_fields | dict(before.settings)
    solver = flags(**{field.name: values[field.name] for field in dataclasses.fields(flags)})
    others = {f.name: getattr(default, f.name) for f in dataclasses.fields(Experiment) if f.name != "solver"}
    outer = _without_solver(flags)
    try:
        found = parse(outer, words, default=outer(**others, solver=solver), prog=prog, description=description)
    except SystemExit:  # after the help, which knows one method
        print(*_other_methods(method), sep="\n")
        raise
    if found.generate and not found.measurements and (named or given):
        word = f".{given[0].replace('_', '-')}" if given else f" {named}"
        raise UserError(
            f"--solver{word}: --generate draws from the prior alone, by steps of its own (--generate-levels); leave "
            "one of the two out"
        )
    chosen = {name: getattr(found.solver, name) for name in given}
    run = before.run_fields | {name: value for name, value in chosen.items() if name in RUN_FIELDS}
    own = dict(before.settings) | {name: value for name, value in chosen.items() if name in row.fields}
    rest = {name: getattr(found, name) for name in others}
    experiment = Experiment(**rest, solver=SolverConfig(method, settings=own, **run))
    check_passed_over(experiment, default)
    return experiment


def solvers_and_problems() -> list[str]:
    """Lines of help: the methods, and the named problems by what they are."""
    named: dict[str, list[str]] = {}
    for name, problem in PROBLEMS.items():
        named.setdefault(problem.description.partition(",")[0], []).append(name)
    for name, file in OWN.items():
        named[PROBLEMS[LIKE[name]].description.partition(",")[0]].append(f"{name} (with --{file} FILE)")
    return [
        "",
        "Solvers (--solver NAME; their settings are --solver.FIELD, see --solver NAME --help-all):",
        *table([(name, f"{row.label}: {row.text}") for name, row in METHODS.items()]),
        "",
        "Problems (--problem NAME; without it, the scan that --scan.FIELD describes):",
        *table([(what if i == 0 else "", row) for what, names in named.items() for i, row in enumerate(_rows(names))]),
    ]


def _rows(names: Sequence[str]) -> list[str]:
    """The names with commas between them, in rows that `table` does not cut."""
    return textwrap.wrap(", ".join(names), WIDTH - 24, break_long_words=False, break_on_hyphens=False)


def _other_methods(method: str) -> list[str]:
    fields = {name: ", ".join(f.replace("_", "-") for f in row.fields) for name, row in METHODS.items()}
    heading = "Settings of the other solvers, explained by --solver NAME --help-all:"
    return [heading, *table([(name, text) for name, text in fields.items() if name != method])]


def _current(args: Sequence[str]) -> list[str]:
    """The arguments in today's spelling; each older one is named on stderr, for one release."""
    words = []
    for word in args:
        flag, equals, value = word.partition("=")
        field = flag.removeprefix("--solver.").replace("-", "_")
        new = flag
        if flag == "--solver.name":
            new = "--solver"
        elif flag.startswith("--solver.") and field in RENAMED:
            new = f"--solver.{RENAMED[field].replace('_', '-')}"
        if new != flag:
            print(f"note: {flag} is now {new}", file=sys.stderr)
        words.append(new + equals + value)
    return words


def _method(args: Sequence[str]) -> tuple[list[str], str]:
    """(the other arguments, the value of --solver or "")."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--solver", default="")
    try:
        known, rest = own.parse_known_args(list(args))
    except argparse.ArgumentError:
        raise UserError(f"--solver needs a name: {', '.join(METHODS)}") from None
    return rest, known.solver


def _default(words: Sequence[str], default: Experiment) -> str:
    """The method of a run that names none."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    known.add_argument("--samples", type=int, default=default.samples)
    known.add_argument("--problem", default=default.problem)
    try:
        given = known.parse_known_args(list(words))[0]
        return default_method(given.problem, given.samples)
    except argparse.ArgumentError:  # what reads the flags in earnest says so
        return default_method(default.problem, default.samples)


def _given(words: Sequence[str], method: str) -> list[str]:
    """The fields of --solver.FIELD, each of which the method must have."""
    fields = (*RUN_FIELDS, *METHODS[method].fields)
    given = []
    for word in words:
        if (match := _FIELD.match(word)) is None:
            continue
        name = match["field"].replace("-", "_")
        if name not in fields:
            have = ", ".join(f.replace("_", "-") for f in fields)
            others = [other for other, row in METHODS.items() if name in row.fields]
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" (a setting of {', '.join(others)})" if others else ""
            hint += f", perhaps --solver.{near[0].replace('_', '-')}" if near else ""
            raise UserError(f"{word.partition('=')[0]}: {method} has no such setting{hint}; it has {have}")
        given.append(name)
    return given


def _flags(row: Method) -> type[Any]:
    """A dataclass of the run fields and the method's own, with types that a command line can give."""
    hints = typing.get_type_hints(row.settings)
    fields: list[Any] = [(name, _plain(typing.get_type_hints(SolverConfig)[name])) for name in RUN_FIELDS]
    fields += [(name, _plain(hints[name])) for name in row.fields]
    made = dataclasses.make_dataclass("Solver", fields, frozen=True)
    texts = attributes(SolverConfig) | attributes(row.settings)
    made.__doc__ = f"{row.label}: {row.text}.\n\nAttributes:\n" + "".join(
        f"  {name}: {texts[name]}\n" for name, _ in fields if name in texts
    )
    return made


def _plain(hint: Any) -> Any:
    """The type without an array or None, which no command line gives."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint
    kept = [kind for kind in typing.get_args(hint) if kind not in (Array, type(None))]
    return typing.Union[tuple(kept)]  # noqa: UP007 (made at run time)


def _without_solver(flags: type[Any]) -> type[Any]:
    """`Experiment` with another type for its solver, and without its checks, which come at the end."""
    fields: list[Any] = []
    hints = typing.get_type_hints(Experiment)
    for field in dataclasses.fields(Experiment):
        fields.append((field.name, flags if field.name == "solver" else hints[field.name]))
    made = dataclasses.make_dataclass("Experiment", fields, frozen=True)
    made.__doc__ = Experiment.__doc__
    return made
