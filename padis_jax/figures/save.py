"""Figures as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from padis_jax.errors import UserError
from padis_jax.files import replacing


def save_figure(path: str | Path, figure: Figure, *, dpi: int = 200) -> None:
    """Writes a figure as the file type of its suffix (.png, .pdf, .svg), atomically.

    Raises:
      UserError: if the suffix is unknown or the file cannot be written; an earlier one is unchanged then.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "pdf", "svg"):
        raise UserError(f"{path}: figures are written as .png, .pdf or .svg")
    with replacing(path) as handle:
        figure.savefig(handle, format=kind, dpi=dpi)
