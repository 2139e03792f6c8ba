"""`padis-data weights`: the weights that come with the program, one line each."""

from __future__ import annotations

from typing import Any

from padis_jax.files import file_hash
from padis_jax.shipped import CARDS, find
from padis_jax.weights import load_weights

COLUMNS = {"name": "name", "megabytes": "MB", "licence": "licence", "images": "images", "window": "window",
           "patch": "patch", "sha256": "SHA-256", "about": "about"}  # fmt: skip


def describe_weights() -> list[dict[str, Any]]:
    """Name, size, licence, image size, window, patch and digest of each, as JSON can hold them; None where unknown."""
    return [_line(name) for name in CARDS]


def _line(name: str) -> dict[str, Any]:
    card, path = CARDS[name], find(name)
    line: dict[str, Any] = {"name": name, "about": card.about, "licence": card.licence, "sha256": card.digest}
    if path is None:
        return line | dict.fromkeys(("path", "megabytes", "images", "channels", "window", "patch"))
    if file_hash(path) != card.digest:
        return line | dict.fromkeys(("megabytes", "images", "channels", "window", "patch")) | {"path": str(path),
            "problem": "damaged, or not the file that the name stands for"}  # fmt: skip
    weights = load_weights(path)
    return line | {
        "path": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "images": list(weights.frame.image_shape),
        "channels": weights.network.image_channels,
        "window": str(weights.window),
        "patch": weights.frame.patch,
    }


def weights_text(lines: list[dict[str, Any]]) -> str:
    """The lines as a table; the digest is cut to twelve figures."""
    rows = [list(COLUMNS.values())]
    for line in lines:
        shown = dict(line)
        if line["images"]:
            shown["images"] = " x ".join(map(str, [*line["images"], line["channels"]]))
        shown["patch"] = "whole" if line["patch"] == 0 else line["patch"]
        shown["sha256"] = line["sha256"][:12]
        if line["path"] is None:
            shown["megabytes"] = "not here"
        shown["about"] = line.get("problem", line["about"])
        rows.append(["-" if shown[key] is None else str(shown[key]) for key in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
