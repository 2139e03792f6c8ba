"""Tutorials with their outputs: what `make tutorials` executed, where it is the page's present text, else a note.

A tutorial is text (docs/tutorials/NAME.nb.md, MyST). Its executed notebook lies in docs/_cache/ under the digest of
that text, so an edited tutorial is never shown with the outputs of another. Only the line that says how long it takes
may change: it is known when the notebook has run.
"""

import hashlib
import re
from pathlib import Path

import jupytext
import nbformat

CACHE = Path(__file__).parents[1] / "_cache"
HOW_LONG = re.compile(r"^\*\*How long\.\*\* .*\n", re.MULTILINE)
NOTE = "```{note}\nThis page was built without its outputs: `make tutorials` runs it.\n```"


def digest(text: str) -> str:
    """The name under which the outputs of a text are kept."""
    return hashlib.sha256(HOW_LONG.sub("", text).encode()).hexdigest()[:32]


def executed(text: str) -> Path:
    """Where the executed notebook of a text is, or will be."""
    return CACHE / f"{digest(text)}.ipynb"


def read(text: str) -> nbformat.NotebookNode:
    """The notebook that a page shows."""
    path, notebook = executed(text), jupytext.reads(text, fmt="md:myst")
    if path.exists():
        kept = nbformat.read(path, as_version=4)
        for cell, now in zip(kept.cells, notebook.cells, strict=True):
            cell.source = now.source
        return kept
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(NOTE))
    return notebook


def outdated(app, env, added, changed, removed):
    """All tutorials: outputs come and go while their texts stay."""
    return [name for name in env.found_docs if str(env.doc2path(name)).endswith(".nb.md")]


def setup(app):
    """Pages whose name ends in .nb.md are read so, in every build."""
    app.config.nb_custom_formats = {".nb.md": ["notebooks.read", {}, False]}
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True}
