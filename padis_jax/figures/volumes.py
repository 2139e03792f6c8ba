"""Volumes: a montage of slices, three planes through the centre, and a picture of each slice to step through."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure
from PIL import Image

from padis_jax.display import BRAIN, CT_DISPLAYS, as_plane
from padis_jax.figures.style import SMALL, TEXT, bare, tight
from padis_jax.window import HOUNSFIELD, Window

MOST, COLUMNS = 30, 6  # slices of a montage, and of a row of it
SIDE = 384  # pixels of the longer side of a step

Spacing = tuple[float, float, float]


def montage(
    volume: ArrayLike,
    labels: Sequence[str],
    *,
    window: Window = HOUNSFIELD,
    display: Window | None = None,
    rows_up: bool = False,
    most: int = MOST,
) -> Figure:
    """Slices of a volume in rows, evenly spread where there are more than `most`.

    Args:
      volume: [D, H, W] or [D, H, W, C] in the window's [0, 1].
      labels: D texts.
      window: what 0 and 1 stand for.
      display: the values that are black and white, in the window's unit; by default the brain window where that is HU,
        else the window itself.
      rows_up: row 0 is shown at the bottom.
      most: slices that are shown.
    """
    slices = np.asarray(volume, np.float32)
    chosen = [round(i * (len(slices) - 1) / max(1, min(most, len(slices)) - 1)) for i in range(min(most, len(slices)))]
    columns = min(COLUMNS, len(chosen))
    rows, cell = -(-len(chosen) // columns), 1.5
    height = cell * slices.shape[1] / slices.shape[2]
    figure = Figure(figsize=(cell * columns, (height + 0.2) * rows), layout=tight())
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax, index in zip(axes.flat, chosen, strict=False):
        grey = _displayed(slices[index], window, display or _usual(window))
        ax.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, origin="lower" if rows_up else "upper")
        ax.set_title(labels[index], fontsize=SMALL, pad=2)
    for ax in axes.flat:
        bare(ax)
    return figure


def orthogonal(
    volume: ArrayLike,
    spacing: Spacing | None,
    *,
    window: Window = HOUNSFIELD,
    displays: Mapping[str, Window] | None = None,
    rows_up: bool = False,
) -> Figure:
    """The axial, coronal and sagittal planes through the centre, with lengths in proportion.

    Slice 0 is at the bottom of the coronal and the sagittal plane. Lines show where the other planes cut. There is
    a row for each display.

    Args:
      volume: [D, H, W] or [D, H, W, C] in the window's [0, 1].
      spacing: mm between slices, rows and columns; None draws voxels as cubes, and says so.
      window: what 0 and 1 stand for.
      displays: name -> the values that are black and white, in the window's unit; by default the brain and the bone
        window where that is HU, else the window itself.
      rows_up: row 0 of a slice is shown at the bottom (the patient's back, in CT that is stored face down).
    """
    voxels = np.asarray(volume, np.float32)
    turned = voxels[:, ::-1] if rows_up else voxels  # row 0 at the top
    between, rows, columns = spacing or (1.0, 1.0, 1.0)
    z, y, x = (n // 2 for n in turned.shape[:3])
    planes = {
        "axial": (turned[z], rows, columns, y, x),
        "coronal": (turned[::-1, y], between, columns, turned.shape[0] - 1 - z, x),
        "sagittal": (turned[::-1, :, x], between, rows, turned.shape[0] - 1 - z, y),
    }
    if displays is None:
        displays = CT_DISPLAYS if window.unit == "HU" else {"": window}
    widths = [plane.shape[1] * across for plane, _, across, *_ in planes.values()]
    heights = [plane.shape[0] * down for plane, down, *_ in planes.values()]
    scale = 3.0 / max(*widths, *heights)  # inches per mm
    size = (scale * sum(widths) + 0.5, (scale * max(heights) + 0.3) * len(displays) + 0.2)
    figure = Figure(figsize=(max(size[0], 3.0), max(size[1], 1.5)), layout="constrained")
    axes = figure.subplots(len(displays), 3, squeeze=False, width_ratios=widths)
    for row, (name, display) in zip(axes, displays.items(), strict=True):
        for ax, (title, (plane, down, across, at_y, at_x)) in zip(row, planes.items(), strict=True):
            grey = _displayed(plane, window, display)
            ax.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, aspect=down / across)
            ax.axhline(at_y, color="#d55e00", linewidth=0.4, alpha=0.7)
            ax.axvline(at_x, color="#d55e00", linewidth=0.4, alpha=0.7)
            ax.set_title(f"{title}, {name}" if name else title, fontsize=TEXT)
            bare(ax)
    lengths = " x ".join(f"{length:g}" for length in spacing) + " mm" if spacing else "unknown: voxels drawn as cubes"
    figure.supxlabel(f"spacing of slices, rows and columns: {lengths}", fontsize=SMALL)
    return figure


def step_png(
    images: Mapping[str, ArrayLike],
    *,
    window: Window = HOUNSFIELD,
    display: Window | None = None,
    rows_up: bool = False,
) -> bytes:
    """The images of one slice side by side, [H, W, C] in the window's [0, 1] each, as a PNG of at most `SIDE` high.

    `display` as for `montage`.
    """
    planes = [
        _displayed(image, window, display or _usual(window))[:: -1 if rows_up else 1] for image in images.values()
    ]
    gap = np.ones((planes[0].shape[0], max(1, planes[0].shape[1] // 64), *planes[0].shape[2:]), np.float32)
    joined = np.concatenate([part for plane in planes for part in (plane, gap)][:-1], axis=1)
    picture = Image.fromarray(np.rint(np.nan_to_num(joined) * 255.0).astype(np.uint8))
    factor = min(1.0, SIDE / max(planes[0].shape[:2]))
    if factor < 1.0:
        picture = picture.resize(tuple(max(1, math.floor(n * factor)) for n in picture.size), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _usual(window: Window) -> Window:
    return BRAIN if window.unit == "HU" else window


def _displayed(image: ArrayLike, window: Window, display: Window) -> np.ndarray:
    """[H, W] or [H, W, 3]: what `display` shows of an image in the window's [0, 1]."""
    values = np.asarray(window.from_unit(as_plane(image)), np.float32)
    return np.clip(np.asarray(display.to_unit(values), np.float32), 0.0, 1.0)
