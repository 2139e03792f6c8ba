"""The site: `make docs`. Everything is local; a warning is an error.

Docstrings are plain text with indented formulas and `names`, so what reStructuredText would take for markup is escaped
before it is parsed.
"""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

import padis_jax  # noqa: E402

project = "padis_jax"
author = "The padis_jax authors"
copyright = "The padis_jax authors, Apache-2.0"
version = release = padis_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "cells",
    "notebooks",
]
exclude_patterns = ["_build", "_ext", "_cache", "equal_budget"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!padis_jax).*")]  # names of other libraries have no page here

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make tutorials` executes them
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

html_theme = "furo"
html_title = f"padis_jax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_show_sourcelink = False
copybutton_selector = "div.highlight pre"


ELSEWHERE = {"weights/README.md": "shipped_weights.md", "data/README.md": "shipped_data.md"}  # read beside their files


def relink(app, name, source):
    """Links of a page to files outside of this folder lead to the pages that include them."""
    up = "../" * name.count("/")
    for outside, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({up}../{outside}", f"]({up}{page}")


def plain(line):
    """A line without markup but for literals in `backticks`."""
    pieces = re.split(r"(`+[^`]+`+)", line)
    pieces[::2] = [re.sub(r"[*|\\]|_(?=\W|$)", lambda m: "\\" + m[0], piece) for piece in pieces[::2]]
    pieces[1::2] = [f"``{piece.strip('`')}``" for piece in pieces[1::2]]
    return "".join(pieces)


def escape(app, what, name, obj, options, lines):
    """Escapes a docstring's lines; examples, and formulas and tables of modules, are kept as they are."""
    result, block, example = [], False, False
    for before, line in zip(["", *lines], lines, strict=False):
        indented = what == "module" and line.startswith("    ")
        if indented and not block and not before:
            result += [".. code-block:: text", ""]
            block = True
        elif line and not line.startswith("    "):
            block = False
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>> "))
        result.append(line if block or example else plain(line))
    lines[:] = result


def setup(app):
    """Docstrings are escaped before napoleon reads them."""
    app.connect("source-read", relink)
    app.connect("autodoc-process-docstring", escape, priority=100)
