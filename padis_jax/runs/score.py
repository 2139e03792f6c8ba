"""What a reconstruction is worth, and what it took; without a truth, only its residual."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.images import HOUNSFIELD, PLAIN
from padis_jax.metrics import Coverage, coverage, head_mask, psnr, relative_error, rmse, ssim, ssim_gaussian
from padis_jax.runs.case import Case
from padis_jax.solvers.samples import Samples

PSNR_LIMIT = 150.0  # dB: an error of 3e-8 of the range, below what float32 resolves; infinity has no mean and no JSON


class Row(NamedTuple):
    """One line of the table; the scores are numbers, or None where there is no truth, or the image is not finite.

    Attributes:
      method: its name.
      residual: ||y - A x|| / ||y||; where y is 0, 0 if A x is too, else None.
      evaluations: network evaluations of the whole image.
      seconds: wall-clock, compilation included.
      psnr: dB, after clipping to [0, 1]; at most `PSNR_LIMIT`. Of a volume over all its voxels.
      ssim: 7 x 7 uniform window; of a volume the mean over its slices.
      ssim_gaussian: 11 x 11 Gaussian window.
      rmse: root mean square error in the window's unit, within the head where the unit is HU.
    """

    method: str
    residual: float | None = None
    evaluations: int = 0
    seconds: float = 0.0
    psnr: Any = None
    ssim: Any = None
    ssim_gaussian: Any = None
    rmse: Any = None

    def shown(self) -> dict[str, Any]:
        """The fields that have a value, scores first."""
        order = ("method", "psnr", "ssim", "ssim_gaussian", "rmse", "residual", "evaluations", "seconds")
        return {name: value for name in order if (value := getattr(self, name)) is not None}


def score(method: str, image: Array | np.ndarray, case: Case, *, evaluations: int = 0, seconds: float = 0.0) -> Row:
    """Metrics of an image [H, W, C], after clipping to [0, 1] for those that compare it with the truth."""
    row = Row(method, None, evaluations, seconds)
    if not np.isfinite(image).all():
        return row
    found, y = case.operator(jnp.asarray(image)), case.measurement.y
    if bool(jnp.any(y != 0)):
        row = row._replace(residual=float(relative_error(found, y)))
    elif not bool(jnp.any(found != 0)):
        row = row._replace(residual=0.0)
    if row.residual is not None and not math.isfinite(row.residual):  # numbers whose squares overflow
        return row._replace(residual=None)
    if case.truth is None:
        return row
    clipped = jnp.clip(jnp.asarray(image), 0, 1)
    planes, truth = case.planes(clipped), case.planes(case.truth)
    whole = [_above(case, a) for a in (clipped, case.truth)]
    return row._replace(
        psnr=min(float(psnr(*whole)), PSNR_LIMIT),
        ssim=float(np.mean([float(ssim(a, b)) for a, b in zip(planes, truth, strict=True)])),
        ssim_gaussian=float(np.mean([float(ssim_gaussian(a, b)) for a, b in zip(planes, truth, strict=True)])),
        rmse=float(rmse(*whole, mask=_head(case), window=case.window)),
    )


def _above(case: Case, image: Any) -> np.ndarray:
    """An image [H, W, C], or the slices of a volume above each other."""
    planes = case.planes(image)
    return np.reshape(planes, (-1, *planes.shape[2:]))


def _head(case: Case) -> np.ndarray | None:
    """The pixels that count for errors in a unit: the head where that is HU, otherwise all."""
    if case.truth is None or case.window.unit != HOUNSFIELD.unit:
        return None
    return np.concatenate([head_mask(plane, window=case.window) for plane in case.planes(case.truth)])


def score_samples(samples: Samples, case: Case) -> tuple[dict[str, Any], list[Coverage], str]:
    """(what metrics.json says of samples, how often their intervals hold the truth, of which pixels)."""
    scale = case.window.high - case.window.low
    about: dict[str, Any] = {
        "count": len(samples.images),
        "mean_deviation": float(jnp.mean(samples.deviation)) * scale,
        "root_mean_square_deviation": float(jnp.sqrt(jnp.mean(jnp.square(samples.deviation)))) * scale,
    }
    if case.truth is None:
        return about, [], ""
    # Clipped samples hold a truth of 0 or 1 too easily: backgrounds and burnt-out lights would count as success.
    mask, where, truth = _head(case), "the truth within the head", _above(case, case.truth)
    if mask is None:
        mask, where = (truth > 0) & (truth < 1), "the truth strictly between 0 and 1"
    drawn = [_above(case, np.clip(image, 0, 1)) for image in samples.images] if mask.any() else []
    held = coverage(np.stack(drawn), truth, mask=mask) if drawn else []
    return about | {"coverage": [row._asdict() for row in held], "coverage_of": where}, held, where


def held_lines(about: Mapping[str, Any]) -> list[str]:
    """How often intervals of samples hold the truth, in words; `about` is what metrics.json says of the samples."""
    rows, where = about.get("coverage", ()), about.get("coverage_of", "")
    return [f"{row['nominal']:.1%} intervals of the samples contain {row['found']:.1%} of {where}." for row in rows]


def headings(unit: str) -> dict[str, tuple[str, str]]:
    """Field of a row -> (heading with its unit, format); the error is within the head where the unit is HU."""
    error = "RMSE" if unit == PLAIN.unit else f"RMSE ({unit}{', head' if unit == HOUNSFIELD.unit else ''})"
    return {
        "method": ("method", "{}"),
        "psnr": ("PSNR (dB)", "{:.2f}"),
        "ssim": ("SSIM", "{:.4f}"),
        "ssim_gaussian": ("SSIM, Gaussian window", "{:.4f}"),
        "rmse": (error, "{:.4g}"),
        "residual": ("residual", "{:.5f}"),
        "evaluations": ("evaluations", "{}"),
        "seconds": ("seconds", "{:.1f}"),
    }


def cells(rows: Sequence[Mapping[str, Any]], unit: str, leave_out: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows (`Row.shown`) as text under their headings; a column that no row has is left out, and other fields stay.

    Args:
      rows: field -> value.
      unit: of the errors.
      leave_out: fields that are not shown.
    """
    columns = headings(unit)
    names = dict.fromkeys(name for row in rows for name in row if name not in leave_out)
    known = [name for name in columns if name in names]
    used = [name for name in names if name not in columns] + known
    made = []
    for row in rows:
        line = {}
        for name in used:
            heading, text = columns.get(name, (name, "{}"))
            value = row.get(name)
            line[heading] = "-" if value is None else text.format(value)
        made.append(line)
    return made


def table(rows: Sequence[Row], unit: str) -> str:
    """The rows as aligned text; the error is within the head where the unit is HU."""
    return aligned(cells([row.shown() for row in rows], unit, leave_out=("ssim_gaussian",)))


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Cells as text in columns, flush right."""
    lines = [list(rows[0]), *([*row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)
