"""The directive `cells FILE...`: lines of JSON of the benchmark as a table that sorts by a click on its head.

    ```{cells} benchmark_quick.jsonl
    :problem: ct20
    ```

A row is a cell: the method, its evaluations, PSNR, SSIM, residual and seconds as the line has them.
"""

import html
import json
import subprocess
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

COLUMNS = (
    ("method", "method", ""),
    ("image", "image", ""),
    ("seed", "seed", "d"),
    ("evaluations", "evaluations", "d"),
    ("psnr", "PSNR (dB)", ".2f"),
    ("ssim", "SSIM", ".4f"),
    ("residual", "residual", ".5f"),
    ("seconds", "seconds", ".0f"),
)


class Cells(SphinxDirective):
    """Reads the file, whose path is relative to the folder of the pages."""

    has_content = False
    required_arguments = 1
    option_spec = {"problem": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """One table, and a line that says where it is from."""
        path = Path(self.env.srcdir) / self.arguments[0]
        self.env.note_dependency(str(path))
        wanted = self.options["problem"]
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        found = [line for line in lines if line.get("problem", line.get("task")) == wanted]
        if not found:
            raise self.error(f"{path.name} has no cell of the problem {wanted}")
        return [nodes.raw("", table(found, source(path)), format="html")]


def table(lines: list[dict], caption: str) -> str:
    """HTML of the cells, best PSNR first."""
    head = "".join(f'<th tabindex="0" role="button">{title}</th>' for _, title, _ in COLUMNS)
    rows = [
        "<tr>" + "".join(f"<td>{cell(line.get(key), form)}</td>" for key, _, form in COLUMNS) + "</tr>"
        for line in sorted(lines, key=lambda line: -(line.get("psnr") or 0))
    ]
    return (
        f'<div class="table-wrapper"><table class="docutils sortable"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def cell(value: object, form: str) -> str:
    """A value as text; a dash where the line has none."""
    return "–" if value is None else html.escape(format(value, form))


def source(path: Path) -> str:
    """The file's name, with date and commit of its last change where git knows them."""
    command = ["git", "log", "-1", "--format=%cs, commit %h", "--", path.name]
    found = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False).stdout.strip()
    return f"{path.name}{', ' if found else ''}{found}"


def setup(app):
    """Registers the directive."""
    app.add_directive("cells", Cells)
    return {"parallel_read_safe": True}
