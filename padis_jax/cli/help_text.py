"""The help of the programs, made of docstrings: --help is a page of 60 lines, --help-all has every flag."""

from __future__ import annotations

import re
import textwrap
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from padis_jax.cli.commands import called_as

WIDTH = 100  # columns


class Page(NamedTuple):
    """What --help shows of a program.

    Attributes:
      program: train, sample, convert, data or benchmark.
      doc: the docstring of its module: a title, indented examples, paragraphs.
      kind: the dataclass that its flags make.
      flags: the fields of `kind` that matter and what they take, "image.path=PATH seed=N"; positional ones in capitals.
      own: flags outside of `kind` and what they do.
      sections: what comes after the flags.
    """

    program: str
    doc: str
    kind: type[Any]
    flags: str
    own: Sequence[tuple[str, str]] = ()
    sections: Callable[[], list[str]] = list

    def short(self, output: Sequence[str]) -> str:
        """The page, ending with the lines on the flags of every program."""
        name, (title, examples, _) = called_as(self.program, folder=False), self._parts()
        flags = table([*self.own, *(_row(self.kind, entry) for entry in self.flags.split())])
        lines = [title, "", f"Usage: {name} [FLAGS], for example", *examples, "", "Flags:", *flags]
        return "\n".join([*lines, *self.sections(), "", *output, f"All flags: {name} --help-all"])

    def full(self) -> str:
        """What --help-all shows above all flags."""
        title, examples, paragraphs = self._parts()
        own = ["", "Flags beside those below:", *table(self.own)] if self.own else []
        return "\n".join([title, "", *examples, "", paragraphs, *own, *self.sections()])

    def _parts(self) -> tuple[str, list[str], str]:
        """(title, examples, paragraphs) of the docstring, in which programs are named as they are called."""

        def named(match: re.Match[str]) -> str:
            return called_as(match[1] or match[2], folder=False)

        text = re.sub(r"\bpython (sample|train)\.py|\bpadis-(convert|data)(?= )", named, self.doc)
        title, examples, *paragraphs = text.strip().split("\n\n")
        return title, [row for line in examples.splitlines() for row in _example(line)], "\n\n".join(paragraphs)


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns, a line for each row; a text that is too long loses its last clauses."""
    column = 2 + max(len(name) for name, _ in rows)
    return [f"  {name:<{column}}{_cut(text, WIDTH - 2 - column)}" for name, text in rows]


def attributes(kind: type[Any]) -> dict[str, str]:
    """Name -> text of the section "Attributes:" of a docstring, without the last full stop."""
    section = (kind.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {2,6}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


def flag(field: str) -> str:
    """How a field is spelled on the command line."""
    return "--" + field.replace("_", "-")


def _row(kind: type[Any], entry: str) -> tuple[str, str]:
    """(flag and what it takes, the first sentence of its docstring and its default)."""
    field, _, takes = entry.partition("=")
    *path, name = field.split(".")
    default: Any = kind()
    for part in path:
        kind, default = typing.get_type_hints(kind)[part], getattr(default, part)
    text = re.split(r"\. (?=[A-Z`\"])", attributes(kind)[name.lower()])[0]
    value = getattr(default, name.lower())
    if value and not isinstance(value, bool) and f'"{value}"' not in text:
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        text += f" (default {shown:g})" if isinstance(value, float) else f" (default {shown})"
    return (entry if field.isupper() else f"{flag(field)} {takes.replace(',', ' ')}".strip()), text


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    end = max(text.rfind(mark, 0, width) for mark in ("; ", ": ", " ("))
    return text[:end] if end > 0 else textwrap.shorten(text, width, placeholder=" ...")


def _example(line: str) -> list[str]:
    """A line of examples; one that is too long continues after a backslash, with its comment below."""
    if line.startswith("     "):  # continues the line above
        return [f"        {line.strip()}"]
    command, *comment = re.split(r" {2,}", line.strip(), maxsplit=1)
    if len(line) <= WIDTH:
        return [line]
    words = textwrap.wrap(command, WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    return [" \\\n        ".join(["    " + words[0], *words[1:]]), *(f"        {text}" for text in comment)]
