"""Figures for papers and for the eye: comparisons in CT windows, patches, training curves, PSNR against distance.

Every function returns a matplotlib Figure drawn without pyplot, so nothing global is changed; `save_figure` writes it.
Images are grey (or as they are, in colour), signed errors red above and blue below the truth, on a symmetric scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from padis_jax.errors import UserError
from padis_jax.files import read_records, replacing
from padis_jax.images import HOUNSFIELD, Window
from padis_jax.metrics import psnr, ssim

# Radiologists name a window by level and width: brain 40/120 (wider than the usual 80, for 20 views), bone 500/2000.
BRAIN = Window("HU", -20.0, 100.0)
BONE = Window("HU", -500.0, 1500.0)
CT_DISPLAYS = {"brain": BRAIN, "bone": BONE}

_SMALL, _TEXT = 7, 8  # points
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour blind too


def comparison(
    truth: ArrayLike,
    images: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    displays: Mapping[str, Window] | None = None,
    error_limit: float | None = None,
    origin: Literal["upper", "lower"] = "upper",
) -> Figure:
    """The truth beside reconstructions, a row for each display window, and a last row of errors on one scale.

    Args:
      truth: [H, W], [H, W, 1] or [H, W, 3] in the window's [0, 1].
      images: name -> reconstruction of the same shape, in the order of the columns. The titles give PSNR and SSIM
        (7 x 7), after clipping to [0, 1].
      window: what 0 and 1 stand for.
      displays: name -> the values shown black and white, in the window's unit; brain and bone where the unit is HU,
        else the window itself.
      error_limit: the end of the error scale; by default the 99th percentile of the last image's error, rounded up.
      origin: "upper" shows row 0 at the top, "lower" at the bottom (data stored with the face down).

    Returns:
      A Figure.

    Raises:
      ValueError: if the shapes differ, or there is nothing to compare.
    """
    reference = _plane(truth)
    planes = {name: _plane(image) for name, image in images.items()}
    for name, plane in planes.items():
        if plane.shape != reference.shape:
            raise ValueError(f"comparison: {name} has shape {plane.shape}, the truth {reference.shape}")
    if not planes:
        raise ValueError("comparison: give at least one image to compare with the truth")
    if displays is None:
        displays = CT_DISPLAYS if window.unit == "HU" else {"image": window}
    scale = window.high - window.low
    errors = {name: _grey((plane - reference) * scale) for name, plane in planes.items()}
    if error_limit is None:
        error_limit = _round_up(float(np.percentile(np.abs(list(errors.values())[-1]), 99.0)))

    rows, columns, cell = len(displays) + 1, len(planes) + 1, 1.75
    height = cell * reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(cell * columns + 0.7, (height + 0.06) * rows + 0.4), layout=_tight())
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (display_name, display) in enumerate(displays.items()):
        for column, plane in enumerate((reference, *planes.values())):
            shown = axes[row, column].imshow(
                display.to_unit(window.from_unit(plane)) if plane.ndim == 3 else window.from_unit(plane),
                cmap="gray",
                vmin=display.low,
                vmax=display.high,
                origin=origin,
                interpolation="nearest",
            )
        if reference.ndim == 2:
            bar = figure.colorbar(shown, ax=axes[row, :], pad=0.01, aspect=18, fraction=0.05)
            _label_bar(bar, display_name, display.unit)
    for column, error in enumerate(errors.values(), start=1):
        drawn = axes[-1, column].imshow(
            error, cmap="RdBu_r", vmin=-error_limit, vmax=error_limit, origin=origin, interpolation="nearest"
        )
    bar = figure.colorbar(drawn, ax=axes[-1, :], pad=0.01, aspect=18, fraction=0.05, extend="both")
    _label_bar(bar, "error", window.unit)
    axes[0, 0].set_title("truth", fontsize=_TEXT)
    axes[-1, 0].text(0.5, 0.5, "image - truth", ha="center", va="center", fontsize=_TEXT)
    for column, (name, plane) in enumerate(planes.items(), start=1):
        clipped = plane.clip(0.0, 1.0)
        axes[0, column].set_title(f"{name}\n{_score(clipped, reference)}", fontsize=_TEXT)
    for ax in axes.flat:
        _bare(ax)
    axes[-1, 0].set_frame_on(False)
    return figure


def gallery(
    truth: ArrayLike,
    images: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    display: Window | None = None,
    origin: Literal["upper", "lower"] = "upper",
    columns: int = 6,
) -> Figure:
    """The truth and many reconstructions in rows of `columns`, each titled with its PSNR and SSIM.

    Args:
      truth: as for `comparison`.
      images: name -> reconstruction, likewise.
      window: what 0 and 1 stand for.
      display: the values shown black and white, in the window's unit; brain where that is HU, else the window itself.
      origin: as for `comparison`.
      columns: pictures in a row.

    Returns:
      A Figure.
    """
    reference = _plane(truth)
    display = display or (BRAIN if window.unit == "HU" else window)
    shown = {"truth": reference} | {name: _plane(image) for name, image in images.items()}
    columns = min(columns, len(shown))
    rows, cell = -(-len(shown) // columns), 1.75
    height = cell * reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(cell * columns, (height + 0.35) * rows), layout=_tight())
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, (name, plane) in zip(axes.flat, shown.items(), strict=False):
        clipped = plane.clip(0.0, 1.0)
        ax.imshow(
            display.to_unit(window.from_unit(clipped)),
            cmap="gray",
            vmin=0.0,
            vmax=1.0,
            origin=origin,
            interpolation="nearest",
        )
        ax.set_title(name if plane is reference else f"{name}\n{_score(clipped, reference)}", fontsize=_TEXT)
    for ax in axes.flat:
        _bare(ax)
    return figure


def maps(
    planes: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    origin: Literal["upper", "lower"] = "upper",
) -> Figure:
    """An image, then maps of sizes such as a deviation and an error, which share one scale from 0.

    Args:
      planes: title -> [H, W], [H, W, 1] or [H, W, 3] in the window's [0, 1]; the first is the image, at least two.
      window: what 0 and 1 stand for.
      origin: as for `comparison`.

    Returns:
      A Figure.

    Raises:
      ValueError: if there are fewer than two planes.
    """
    if len(planes) < 2:
        raise ValueError("maps: give an image and at least one map")
    (title, image), *rest = [(name, _plane(plane)) for name, plane in planes.items()]
    scale = window.high - window.low
    sizes = [(name, _grey(plane) * scale) for name, plane in rest]
    limit = _round_up(float(np.percentile([plane for _, plane in sizes], 99.0)))
    cell = 2.4
    height = cell * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(cell * len(planes) + 0.7, height + 0.4), layout=_tight())
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    axes[0].imshow(image.clip(0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, origin=origin, interpolation="nearest")
    axes[0].set_title(title, fontsize=_TEXT)
    for ax, (name, plane) in zip(axes[1:], sizes, strict=True):
        drawn = ax.imshow(plane, cmap="viridis", vmin=0.0, vmax=limit, origin=origin, interpolation="nearest")
        ax.set_title(name, fontsize=_TEXT)
    bar = figure.colorbar(drawn, ax=axes[1:], pad=0.01, aspect=18, fraction=0.05, extend="max")
    _label_bar(bar, "size", window.unit)
    for ax in axes:
        _bare(ax)
    return figure


def patch_grid(
    columns: Mapping[str, ArrayLike], *, labels: Sequence[str] = (), limits: tuple[float, float] = (0.0, 1.0)
) -> Figure:
    """Patches in columns such as clean, noisy, denoised; a row for each patch.

    Args:
      columns: title -> patches [N, p, p], [N, p, p, 1] or [N, p, p, 3].
      labels: a text left of each row, for instance its noise level; none or N.
      limits: the values shown black and white.

    Returns:
      A Figure.

    Raises:
      ValueError: if the columns hold different numbers of patches, or no patch.
    """
    stacks = {title: np.asarray(patches, np.float32) for title, patches in columns.items()}
    counts = {len(stack) for stack in stacks.values()}
    if len(counts) != 1 or not max(counts) or len(labels) not in (0, *counts):
        raise ValueError(f"patch_grid: columns of {sorted(counts)} patches and {len(labels)} labels do not make a grid")
    count = counts.pop()
    figure = Figure(figsize=(1.1 * len(stacks) + 0.3, 1.1 * count + 0.25), layout=_tight())
    axes = figure.subplots(count, len(stacks), squeeze=False)
    low, high = limits
    for column, (title, stack) in enumerate(stacks.items()):
        axes[0, column].set_title(title, fontsize=_TEXT)
        for row, patch in enumerate(stack):
            plane = ((_plane(patch) - low) / (high - low)).clip(0.0, 1.0)
            axes[row, column].imshow(plane, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            _bare(axes[row, column])
    for row, label in enumerate(labels):
        axes[row, 0].set_ylabel(label, fontsize=_SMALL)
    return figure


def training_curves(
    log: str | Path | Iterable[Mapping[str, Any]],
    *,
    x: str = "step",
    y: Sequence[str] = ("loss", "validation_loss"),
    by: str = "patch",
    smooth: float = 0.02,
) -> Figure:
    """Logged quantities in the course of training, with their running means; a curve for each quantity and patch size.

    Args:
      log: a JSONL file, or its records. Records without `x` or any of `y` are passed over, and so is a last line that
        was cut off.
      x: the field for the horizontal axis.
      y: the fields for the vertical axis, logarithmic where all values are positive.
      by: the field that tells curves of one quantity apart; records without it make one curve.
      smooth: the half-width of the running mean, as a share of a curve's points.

    Returns:
      A Figure.

    Raises:
      UserError: if the file is missing or no JSONL, or holds no such records.
    """
    records = read_records(log) if isinstance(log, (str, Path)) else list(log)
    curves: dict[tuple[str, Any], list[tuple[float, float]]] = {}
    for record in records:
        for field in y:
            if record.get(x) is not None and record.get(field) is not None:
                curves.setdefault((field, record.get(by)), []).append((float(record[x]), float(record[field])))
    if not curves:
        source = log if isinstance(log, (str, Path)) else "training log"
        raise UserError(f"{source}: no records with the fields {x!r} and {' or '.join(map(repr, y))}")
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    ax = figure.add_subplot()
    order = sorted(curves, key=lambda curve: (y.index(curve[0]), str(curve[1]).zfill(12)))
    for index, (field, group) in enumerate(order):
        along, values = np.array(curves[field, group]).T
        half = max(1, round(smooth * len(values)))
        sums = np.concatenate([[0.0], np.cumsum(values)])
        first = np.maximum(np.arange(len(values)) - half, 0)
        last = np.minimum(np.arange(len(values)) + half + 1, len(values))
        mean = (sums[last] - sums[first]) / (last - first)
        colour = _COLOURS[index % len(_COLOURS)]
        label = field.replace("_", " ") + ("" if group is None else f", {by} {group}")
        ax.plot(along, values, color=colour, alpha=0.25, linewidth=0.6)
        ax.plot(along, mean, color=colour, linewidth=1.4, label=label)
    if all(value > 0 for points in curves.values() for _, value in points):
        ax.set_yscale("log")
    _dress(ax, x, y[0], legend=len(curves) > 1)
    return figure


def psnr_against_distance(
    distance: Sequence[int],
    methods: Mapping[str, Sequence[float]],
    *,
    names: Sequence[str] = (),
) -> Figure:
    """PSNR of left-out slices against their distance to the nearest training slice: does the prior only remember?

    Args:
      distance: N distances in slices.
      methods: name -> N values in dB.
      names: N texts written beside the points of the last method, "" where none is wanted; none or N.

    Returns:
      A Figure; the lines join the medians of each distance.

    Raises:
      ValueError: if the lengths differ or there is nothing to draw.
    """
    along = np.asarray(distance)
    if not methods or not along.size or any(len(v) != along.size for v in methods.values()):
        counts = {name: len(values) for name, values in methods.items()}
        raise ValueError(f"psnr_against_distance: {along.size} distances and values {counts} do not go together")
    if len(names) not in (0, along.size):
        raise ValueError(f"psnr_against_distance: {along.size} distances but {len(names)} names")
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    ax = figure.add_subplot()
    steps = np.unique(along)
    for index, (name, given) in enumerate(methods.items()):
        values, colour = np.asarray(given, float), _COLOURS[index % len(_COLOURS)]
        shift = 0.08 * (index - (len(methods) - 1) / 2)  # side by side, so that methods do not hide each other
        ax.plot(along + shift, values, "o", color=colour, markersize=3.5, alpha=0.7, markeredgewidth=0)
        ax.plot(steps + shift, [np.median(values[along == s]) for s in steps], color=colour, linewidth=1.2, label=name)
    for where, value, name in zip(along, list(methods.values())[-1], names, strict=False):
        ax.annotate(name, (float(where), float(value)), xytext=(4, 2), textcoords="offset points", fontsize=_SMALL - 1)
    ax.set_xticks(steps)
    _dress(ax, "distance to the nearest training slice (slices)", "PSNR (dB)", legend=False)
    ax.legend(fontsize=_SMALL, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(methods))
    return figure


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


def _plane(image: ArrayLike) -> np.ndarray:
    """[H, W] for grey images, [H, W, 3] for colour."""
    plane = np.asarray(image, np.float32)
    plane = plane[..., 0] if plane.ndim == 3 and plane.shape[-1] == 1 else plane
    if plane.ndim != 2 and (plane.ndim != 3 or plane.shape[-1] != 3):
        raise ValueError(f"a figure shows images [H, W], [H, W, 1] or [H, W, 3], got {plane.shape}")
    return plane


def _score(clipped: np.ndarray, reference: np.ndarray) -> str:
    score = f"{float(psnr(clipped, reference)):.2f} dB"
    if min(reference.shape[:2]) >= 7:  # the SSIM window
        score += f" / {float(ssim(clipped, reference)):.3f}"
    return score


def _grey(plane: np.ndarray) -> np.ndarray:
    return plane.mean(-1) if plane.ndim == 3 else plane


def _round_up(value: float) -> float:
    """The next of ... 1, 2, 5, 10, 20, 50 ...; 1 for 0."""
    if not value > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1.0, 2.0, 5.0, 10.0) if power * step >= value * (1.0 - 1e-6))


def _tight() -> ConstrainedLayoutEngine:
    """A layout with hardly a gap between pictures."""
    return ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _dress(ax: Axes, x: str, y: str, *, legend: bool) -> None:
    ax.set_xlabel(x, fontsize=_TEXT)
    ax.set_ylabel(y, fontsize=_TEXT)
    ax.tick_params(labelsize=_SMALL, which="both")
    ax.grid(True, linewidth=0.4, alpha=0.4)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(fontsize=_SMALL, frameon=False)


def _label_bar(bar: Any, name: str, unit: str) -> None:
    bar.set_label(f"{name} ({unit})" if unit != "1" else name, fontsize=_TEXT)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_linewidth(0.4)
