"""Whether an image looks like those that a prior was trained on: means and deviations of small blocks.

An image is cut into blocks of 8 x 8 pixels. Each has a mean m and a standard deviation s, and the pair falls into one
of 16 x 16 cells: m in equal steps over 0 to 1, s in equal factors over 0.02 to 1; what lies outside is in the last
cell. With q the share of an image's blocks in each cell and p that of all training images, both blurred by 0.7 cells,

    distance = sum of q ln(q / p)        (Kullback and Leibler 1951)

says how many of the image's blocks have a brightness and a contrast that training images do not have. The floor of s is
there so that noise, which total variation removes, makes no difference. `usual` is what 19 of 20 training images stay
below, each held against the others; an image is strange at LIMIT times that. docs/studies/fit.md has how often that is
right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from scipy import ndimage

SIDE, CELLS, FLOOR, BLUR = 8, 16, 0.02, 0.7
LIMIT, LEAST = 1.5, 0.2  # of `usual`, and a distance that is never strange
USUAL = 0.95
_KNOWN, _OWN = 0.02, 1e-3  # added to the counts of a cell, so that empty ones have a logarithm


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Statistics of training images, as weights files hold them.

    Attributes:
      counts: blocks in each cell, CELLS rows (mean) of CELLS (deviation).
      usual: the distance that 19 of 20 training images stay below.
    """

    counts: tuple[tuple[int, ...], ...]
    usual: float

    def __post_init__(self) -> None:
        if len(self.counts) != CELLS or any(len(row) != CELLS for row in self.counts):
            raise ValueError(f"blocks: counts must be {CELLS} x {CELLS}")
        if not all(0 <= n < 2**53 for row in self.counts for n in row) or not any(map(any, self.counts)):
            raise ValueError("blocks: counts must be 0 to 2^53, not all of them 0")
        if not (math.isfinite(self.usual) and self.usual >= 0):
            raise ValueError(f"blocks: usual is {self.usual}: it must be finite and not negative")

    def distance(self, image: np.ndarray) -> float:
        """Of an image [H, W, C] in image units, 8 x 8 pixels or more; channels are averaged."""
        return _distance(_counts(image), np.asarray(self.counts, np.float64))

    def strange(self, image: np.ndarray) -> bool:
        """Whether it looks like none of the training images."""
        return self.distance(image) > max(LEAST, LIMIT * self.usual)


def blocks_of(images: Iterable[np.ndarray]) -> Blocks | None:
    """Of training images [H, W, C], one after the other; None of less than three, or of smaller ones than a block."""
    each = [_counts(image) for image in images if min(image.shape[:2]) >= SIDE]
    if len(each) < 3:
        return None
    total = np.sum(each, axis=0)
    others = [_distance(counts, total - counts) for counts in each]
    rows = tuple(tuple(int(n) for n in row) for row in total)
    return Blocks(rows, float(np.quantile(others, USUAL)))


def _counts(image: np.ndarray) -> np.ndarray:
    grey = np.asarray(image, np.float64).mean(-1)
    h, w = (side // SIDE for side in grey.shape)
    tiles = grey[: h * SIDE, : w * SIDE].reshape(h, SIDE, w, SIDE)
    mean = np.clip(tiles.mean((1, 3)), 0, 1)
    spread = np.clip(tiles.std((1, 3)), FLOOR, 1)
    row = np.minimum((mean * CELLS).astype(int), CELLS - 1)
    column = np.minimum((np.log(spread / FLOOR) / -np.log(FLOOR) * CELLS).astype(int), CELLS - 1)
    counts = np.zeros((CELLS, CELLS))
    np.add.at(counts, (row.ravel(), column.ravel()), 1)
    return counts


def _distance(own: np.ndarray, known: np.ndarray) -> float:
    q = ndimage.gaussian_filter(own, BLUR) + _OWN
    p = ndimage.gaussian_filter(known, BLUR) + _KNOWN
    q, p = q / q.sum(), p / p.sum()
    return float(np.sum(q * np.log(q / p)))
