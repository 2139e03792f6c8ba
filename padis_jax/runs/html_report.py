"""One HTML page of a run: pictures, metrics and settings in a single file that opens without a network.

Pictures are embedded as data URIs, nothing is loaded from elsewhere, and every text from outside is escaped. The slices
of a volume, or samples, are stepped through with a slider, by a few lines of JavaScript; without it, the middle one is
shown. What speaks against the result stands first, the settings are folded.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from padis_jax.files import write_bytes

NOTICE = "Not for diagnosis or any other clinical use."
RESIDUAL = "residual: ||y - A x|| / ||y||, what an image does not explain of the measurement; least is not best."

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto }
th, td { padding: .25em .8em; border-bottom: 1px solid #ccc; text-align: right }
th:first-child, td:first-child { text-align: left }
figure { margin: 1em 0 } img { max-width: 100%; image-rendering: auto } figcaption { color: #555 }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 13px }
.warning { background: #fff3cd; border-left: .4em solid #b35c00; padding: .6em 1em }
.small { color: #555; font-size: 13px } summary { cursor: pointer; font-weight: 600; margin: 1em 0 .5em }
.steps input { width: 60%; vertical-align: middle } .steps img { width: min(100%, 48em); display: block }
.steps img[hidden] { display: none }
"""
_STEP = """
for (const view of document.querySelectorAll(".steps")) {
  const slices = [...view.querySelectorAll("img")], slider = view.querySelector("input");
  const label = view.querySelector("output"), button = view.querySelector("button");
  let timer = null;
  const show = () => {
    slices.forEach((slice, at) => { slice.hidden = at !== Number(slider.value); });
    label.textContent = slices[slider.value].alt;
  };
  slider.addEventListener("input", show);
  button.addEventListener("click", () => {
    button.textContent = timer === null ? "stop" : "play";
    if (timer !== null) { clearInterval(timer); timer = null; return; }
    timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % slices.length; show(); }, 150);
  });
  show();
}
"""


def report_html(
    title: str,
    *,
    pictures: Mapping[str, bytes],
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    steps: Mapping[str, bytes] | None = None,
    details: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The page.

    Args:
      title: heading.
      pictures: caption -> PNG file, as bytes.
      rows: the table, name of column -> text or number; columns are those of the first row.
      settings: nested mappings that JSON can hold, shown on demand.
      notes: paragraphs under the heading.
      warnings: what speaks against the result, above all else.
      steps: label -> PNG file, pictures of one size to step through, in order.
      details: title -> rows of a further table, which is shown on demand.

    Raises:
      ValueError: if a picture is no PNG.
    """
    steps = steps or {}
    for caption, data in (*pictures.items(), *steps.items()):
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise ValueError(f"report: picture {caption!r} is no PNG")
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f'<p class="warning"><strong>Warning:</strong> {html.escape(text)}.</p>' for text in warnings]
    parts += [f"<p>{html.escape(note)}</p>" for note in (NOTICE, *notes)]
    if rows:
        parts.append(_table(rows))
        if "residual" in rows[0]:
            parts.append(f'<p class="small">{html.escape(RESIDUAL)}</p>')
    if steps:
        parts.append(_stepped(steps))
    for caption, data in pictures.items():
        text = html.escape(caption)
        parts.append(f'<figure><img src="{_source(data)}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    for heading, more in (details or {}).items():
        parts.append(f"<details><summary>{html.escape(heading)}</summary>\n{_table(more)}\n</details>")
    text = html.escape(json.dumps(settings, indent=2, default=str))
    parts.append(f"<details><summary>Settings</summary>\n<pre>{text}</pre>\n</details>")
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


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in rows[0])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(_text(row.get(name)))}</td>" for name in rows[0]) + "</tr>" for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _stepped(steps: Mapping[str, bytes]) -> str:
    """One of the pictures, the middle one at first, with a slider under it."""
    middle = len(steps) // 2
    shown = [
        f'<img src="{_source(data)}" alt="{html.escape(label)}"{"" if at == middle else " hidden"}>'
        for at, (label, data) in enumerate(steps.items())
    ]
    slider = f'<input type="range" min="0" max="{len(steps) - 1}" value="{middle}" aria-label="step">'
    controls = f"<figcaption>{slider} <button>play</button> <output></output></figcaption>"
    pictures = "\n".join(shown)
    return f'<figure class="steps">\n{pictures}\n{controls}</figure>\n<script>{_STEP}</script>'


def _source(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
