"""Table, picture and files of studies/htc2022/__main__.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from padis_jax.figures import save_figure
from padis_jax.files import write_bytes, write_json, write_npz


def save(out: Path, about: dict[str, Any], rows: list[dict[str, Any]], images: dict[str, np.ndarray]) -> None:
    """Writes settings and scores (arcs.json), images, the table and the picture of the scans so far."""
    write_json(out / "arcs.json", about | {"rows": rows})
    write_npz(out / "images.npz", images)
    write_bytes(out / "arcs.md", table(rows).encode())
    save_figure(out / "arcs.png", picture(rows, images), dpi=100)


def table(rows: list[dict[str, Any]]) -> str:
    """Matthews coefficients in Markdown."""
    names = _methods(rows)
    lines = ["| scan | degrees | views | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for row in rows:
        cells = [f"{row[name]['matthews']:.4f}" for name in names]
        lines.append(f"| {row['scan']} | {row['degrees']:g} | {row['views']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, Any]], images: dict[str, np.ndarray]) -> Figure:
    """A row of reconstructions for every method, titled with scan and Matthews coefficient; 0 is black, 1 white."""
    names = _methods(rows)
    figure = Figure(figsize=(1.75 * len(rows), 2.05 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(rows), squeeze=False)
    for name, line in zip(names, axes, strict=True):
        for row, ax in zip(rows, line, strict=True):
            ax.imshow(images[f"{row['scan']}/{name}"], cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            ax.set_title(f"{row['scan']}\n{name} {row[name]['matthews']:.3f}", fontsize=8)
            ax.set_axis_off()
    return figure


def _methods(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in ("FBP", "TV", "TMPD") if name in rows[0]]
