"""One HTML page of a run: pictures, metrics and settings in a single file that opens without a network.

Pictures are embedded as data URIs, nothing is loaded from elsewhere, and every text from outside is escaped.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from padis_jax.files import write_bytes

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right }
th:first-child, td:first-child { text-align: left }
figure { margin: 1em 0 } img { max-width: 100%; image-rendering: auto } figcaption { color: #555 }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 13px }
"""


def report_html(
    title: str,
    *,
    pictures: Mapping[str, bytes],
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """The page.

    Args:
      title: heading.
      pictures: caption -> PNG file, as bytes.
      rows: the table, name of column -> text or number; columns are those of the first row.
      settings: nested mappings that JSON can hold.
      notes: paragraphs under the heading.

    Raises:
      ValueError: if a picture is no PNG.
    """
    for caption, data in pictures.items():
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"report: picture {caption!r} is no PNG")
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    if rows:
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(row.get(name)))}</td>" for name in rows[0]) + "</tr>"
            for row in rows
        )
        parts.append(f"<table>\n<tr>{head}</tr>\n{body}\n</table>")
    for caption, data in pictures.items():
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        text = html.escape(caption)
        parts.append(f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    parts.append(f"<h2>Settings</h2>\n<pre>{html.escape(json.dumps(settings, indent=2, default=str))}</pre>")
    page = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{page}\n</body>\n</html>\n"
    )


def write_report(path: str | Path, title: str, **contents: Any) -> None:
    """Writes `report_html` to a file, atomically.

    Raises:
      UserError: if the file cannot be written; an earlier one is unchanged then.
    """
    write_bytes(path, report_html(title, **contents).encode(errors="backslashreplace"))  # names may be no UTF-8


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
