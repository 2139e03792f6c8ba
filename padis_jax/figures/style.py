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


def as_grey(plane: np.ndarray) -> np.ndarray:
    """[H, W]: the mean of the colours."""
    return plane.mean(-1) if plane.ndim == 3 else plane


def score_text(image: ArrayLike, truth: ArrayLike) -> str:
    """PSNR of the image, clipped to [0, 1], and SSIM where it is as large as its window."""
    clipped, reference = (np.asarray(a, np.float32).reshape(*np.shape(a)[:2], -1) for a in (image, truth))
    clipped = clipped.clip(0.0, 1.0)
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
