"""Curves: the course of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from padis_jax.errors import UserError
from padis_jax.figures.style import COLOURS, dress
from padis_jax.files import read_records

ALONG, FIELDS = "step", ("loss", "validation_loss")
GROUP = "patch"  # size of the patches, in logs that tell it
SMOOTH = 0.02  # half-width of the running mean, as a share of a curve's points


def training_curves(log: str | Path | Iterable[Mapping[str, Any]]) -> Figure:
    """The losses in the course of training, with their running means; a curve for each loss and patch size.

    The vertical axis is logarithmic where all values are positive.

    Args:
      log: a JSONL file, or its records. Records without a step or a loss are passed over, and so is a last line that
        was cut off.

    Returns:
      A Figure.

    Raises:
      UserError: if the file is missing or no JSONL, or holds no such records.
    """
    records = read_records(cast(Path, log)) if isinstance(log, (str, os.PathLike)) else list(log)
    curves: dict[tuple[str, Any], list[tuple[float, float]]] = {}
    for record in records:
        for field in FIELDS:
            if record.get(ALONG) is not None and record.get(field) is not None:
                point = float(record[ALONG]), float(record[field])
                curves.setdefault((field, record.get(GROUP)), []).append(point)
    if not curves:
        source = log if isinstance(log, (str, Path)) else "training log"
        raise UserError(f"{source}: no records with the fields {ALONG!r} and {' or '.join(map(repr, FIELDS))}")
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    ax = figure.add_subplot()
    order = sorted(curves, key=lambda curve: (FIELDS.index(curve[0]), str(curve[1]).zfill(12)))
    for index, (field, group) in enumerate(order):
        along, values = np.array(curves[field, group]).T
        half = max(1, round(SMOOTH * len(values)))
        sums = np.concatenate([[0.0], np.cumsum(values)])
        first = np.maximum(np.arange(len(values)) - half, 0)
        last = np.minimum(np.arange(len(values)) + half + 1, len(values))
        mean = (sums[last] - sums[first]) / (last - first)
        colour = COLOURS[index % len(COLOURS)]
        label = field.replace("_", " ") + ("" if group is None else f", {GROUP} {group}")
        ax.plot(along, values, color=colour, alpha=0.25, linewidth=0.6)
        ax.plot(along, mean, color=colour, linewidth=1.4, label=label)
    if all(value > 0 for points in curves.values() for _, value in points):
        ax.set_yscale("log")
    dress(ax, ALONG, FIELDS[0], legend=len(curves) > 1)
    return figure
