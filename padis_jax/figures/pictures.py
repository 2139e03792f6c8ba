"""Images beside each other: comparisons, galleries, maps of deviation and error, patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from padis_jax.display import BRAIN, CT_DISPLAYS, as_plane
from padis_jax.figures.style import (
    SMALL,
    TEXT,
    as_grey,
    bare,
    label_bar,
    round_up,
    score_text,
    tight,
)
from padis_jax.window import HOUNSFIELD, PLAIN, Window

COLUMNS = 6  # pictures in a row of a gallery


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
      truth: [H, W] or [H, W, C] in the window's [0, 1]; where C is not 1 or 3, channels are beside each other.
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
    reference = as_plane(truth)
    planes = {name: as_plane(image) for name, image in images.items()}
    for name, plane in planes.items():
        if plane.shape != reference.shape:
            raise ValueError(f"comparison: {name} has shape {plane.shape}, the truth {reference.shape}")
    if not planes:
        raise ValueError("comparison: give at least one image to compare with the truth")
    if displays is None:
        displays = CT_DISPLAYS if window.unit == "HU" else {"image": window}
    scale = window.high - window.low
    errors = {name: as_grey((plane - reference) * scale) for name, plane in planes.items()}
    if error_limit is None:
        error_limit = round_up(float(np.percentile(np.abs(list(errors.values())[-1]), 99.0)))

    rows, columns, cell = len(displays) + 1, len(planes) + 1, 1.75
    height = cell * reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(cell * columns + 0.7, (height + 0.06) * rows + 0.4), layout=tight())
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
            label_bar(bar, display_name, display.unit)
    for column, error in enumerate(errors.values(), start=1):
        drawn = axes[-1, column].imshow(
            error, cmap="RdBu_r", vmin=-error_limit, vmax=error_limit, origin=origin, interpolation="nearest"
        )
    bar = figure.colorbar(drawn, ax=axes[-1, :], pad=0.01, aspect=18, fraction=0.05, extend="both")
    label_bar(bar, "error", window.unit)
    axes[0, 0].set_title("truth", fontsize=TEXT)
    axes[-1, 0].text(0.5, 0.5, "image - truth", ha="center", va="center", fontsize=TEXT)
    for column, name in enumerate(planes, start=1):
        axes[0, column].set_title(f"{name}\n{score_text(images[name], truth)}", fontsize=TEXT)
    for ax in axes.flat:
        bare(ax)
    axes[-1, 0].set_frame_on(False)
    return figure


def gallery(
    truth: ArrayLike,
    images: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    origin: Literal["upper", "lower"] = "upper",
) -> Figure:
    """The truth and many reconstructions in rows of `COLUMNS`, each titled with its PSNR and SSIM.

    Black and white are the ends of the brain window where the unit is HU, else those of the window itself.

    Args:
      truth: as for `comparison`.
      images: name -> reconstruction, likewise.
      window: what 0 and 1 stand for.
      origin: as for `comparison`.

    Returns:
      A Figure.
    """
    reference = as_plane(truth)
    display = BRAIN if window.unit == "HU" else window
    shown = {"truth": reference} | {name: as_plane(image) for name, image in images.items()}
    columns = min(COLUMNS, len(shown))
    rows, cell = -(-len(shown) // columns), 1.75
    height = cell * reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(cell * columns, (height + 0.45) * rows), layout=tight())
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
        ax.set_title(name if plane is reference else f"{name}\n{score_text(images[name], truth)}", fontsize=TEXT)
    for ax in axes.flat:
        bare(ax)
    return figure


def images_row(
    images: Mapping[str, ArrayLike],
    *,
    window: Window = PLAIN,
    displays: Mapping[str, Window] | None = None,
    origin: Literal["upper", "lower"] = "upper",
) -> Figure:
    """Images beside each other, each under its name, a row for each display window.

    Args:
      images: name -> [H, W, C] in the window's [0, 1].
      window: what 0 and 1 stand for.
      displays: as for `comparison`; None for the window itself.
      origin: as for `comparison`.

    Returns:
      A Figure.
    """
    displays = displays or {"image": window}
    planes = {name: as_plane(image) for name, image in images.items()}
    height, width = next(iter(planes.values())).shape[:2]
    size = (3.2 * len(planes) + 0.5, (3.2 * height / width + 0.05) * len(displays) + 0.3)
    figure = Figure(figsize=size, layout=tight())
    axes = figure.subplots(len(displays), len(planes), squeeze=False)
    for row, (display_name, display) in zip(axes, displays.items(), strict=True):
        for ax, plane in zip(row, planes.values(), strict=True):
            values = window.from_unit(plane)
            shown = ax.imshow(
                display.to_unit(values) if plane.ndim == 3 else values,
                cmap="gray",
                vmin=display.low,
                vmax=display.high,
                origin=origin,
                interpolation="nearest",
            )
            bare(ax)
        if shown.get_array().ndim == 2:
            bar = figure.colorbar(shown, ax=list(row), pad=0.01, aspect=25, fraction=0.03)
            label_bar(bar, display_name, display.unit)
    for ax, name in zip(axes[0], planes, strict=True):
        ax.set_title(name, fontsize=9)
    return figure


def maps(
    planes: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    display: Window | None = None,
    origin: Literal["upper", "lower"] = "upper",
) -> Figure:
    """An image, then maps of sizes such as a deviation and an error, which share one scale from 0.

    Args:
      planes: title -> [H, W], [H, W, 1] or [H, W, 3] in the window's [0, 1]; the first is the image, at least two.
      window: what 0 and 1 stand for.
      display: the values of the image that are black and white, in the window's unit; None for the window's own.
      origin: as for `comparison`.

    Returns:
      A Figure.

    Raises:
      ValueError: if there are fewer than two planes.
    """
    if len(planes) < 2:
        raise ValueError("maps: give an image and at least one map")
    (title, image), *rest = [(name, as_plane(plane)) for name, plane in planes.items()]
    scale = window.high - window.low
    sizes = [(name, as_grey(plane) * scale) for name, plane in rest]
    limit = round_up(float(np.percentile([plane for _, plane in sizes], 99.0)))
    cell = 2.4
    height = cell * image.shape[0] / image.shape[1]
    figure = Figure(figsize=(cell * len(planes) + 0.7, height + 0.4), layout=tight())
    axes = figure.subplots(1, len(planes), squeeze=False)[0]
    grey = (display or window).to_unit(window.from_unit(image))
    axes[0].imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, origin=origin, interpolation="nearest")
    axes[0].set_title(title, fontsize=TEXT)
    for ax, (name, plane) in zip(axes[1:], sizes, strict=True):
        drawn = ax.imshow(plane, cmap="viridis", vmin=0.0, vmax=limit, origin=origin, interpolation="nearest")
        ax.set_title(name, fontsize=TEXT)
    bar = figure.colorbar(drawn, ax=axes[1:], pad=0.01, aspect=18, fraction=0.05, extend="max")
    label_bar(bar, "size", window.unit)
    for ax in axes:
        bare(ax)
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
    figure = Figure(figsize=(1.1 * len(stacks) + 0.3, 1.1 * count + 0.25), layout=tight())
    axes = figure.subplots(count, len(stacks), squeeze=False)
    low, high = limits
    for column, (title, stack) in enumerate(stacks.items()):
        axes[0, column].set_title(title, fontsize=TEXT)
        for row, patch in enumerate(stack):
            plane = ((as_plane(patch) - low) / (high - low)).clip(0.0, 1.0)
            axes[row, column].imshow(plane, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            bare(axes[row, column])
    for row, label in enumerate(labels):
        axes[row, 0].set_ylabel(label, fontsize=SMALL)
    return figure
