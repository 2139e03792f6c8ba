"""What the figures have in common: sizes, colours, axes, and how values become grey."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from padis_jax.metrics import psnr, ssim

SMALL, TEXT = 7, 8  # points
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour blind too


def as_plane(image: ArrayLike) -> np.ndarray:
    """[H, W] for grey images, [H, W, 3] for colour."""
    plane = np.asarray(image, np.float32)
    plane = plane[..., 0] if plane.ndim == 3 and plane.shape[-1] == 1 else plane
    if plane.ndim != 2 and (plane.ndim != 3 or plane.shape[-1] != 3):
        raise ValueError(f"a figure shows images [H, W], [H, W, 1] or [H, W, 3], got {plane.shape}")
    return plane


def as_grey(plane: np.ndarray) -> np.ndarray:
    """[H, W]: the mean of the colours."""
    return plane.mean(-1) if plane.ndim == 3 else plane


def score_text(clipped: np.ndarray, reference: np.ndarray) -> str:
    """PSNR, and SSIM where the image is as large as its window."""
    score = f"{float(psnr(clipped, reference)):.2f} dB"
    if min(reference.shape[:2]) >= 7:  # the SSIM window
        score += f" / {float(ssim(clipped, reference)):.3f}"
    return score


def round_up(value: float) -> float:
    """The next of ... 1, 2, 5, 10, 20, 50 ...; 1 for 0."""
    if not value > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1.0, 2.0, 5.0, 10.0) if power * step >= value * (1.0 - 1e-6))


def tight() -> ConstrainedLayoutEngine:
    """A layout with hardly a gap between pictures."""
    return ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)


def bare(ax: Axes) -> None:
    """Takes ticks and frame away."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def dress(ax: Axes, x: str, y: str, *, legend: bool) -> None:
    """Labels, grid and size of the text of a plot."""
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    ax.tick_params(labelsize=SMALL, which="both")
    ax.grid(True, linewidth=0.4, alpha=0.4)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(fontsize=SMALL, frameon=False)


def label_bar(bar: Any, name: str, unit: str) -> None:
    """Name and unit of a colour bar."""
    bar.set_label(f"{name} ({unit})" if unit != "1" else name, fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_linewidth(0.4)
