"""Tilings of a Gaussian image in closed form: every patch denoiser is a Wiener filter.

The image is N(0, C), y = x + sigma z, S = C + sigma^2 I, n pixels. Blocks are what a tiling cuts out of the image (the
padding is known to be 0 and says nothing of the image). With Q_o the block-diagonal matrix of the inverses of the
blocks of S in tiling o, Q the inverse of S and R = mean_o Q_o,

    score of the image  -Q y      of one tiling  -Q_o y      of the average  -R y
    E|Q_o y|^2 = tr Q_o           (docs/studies/partitions.md, proposition 1)
    E|Q_o y - Q y|^2 = tr Q - tr Q_o
    E|R y - Q y|^2 = tr Q - 2 tr R + tr(R S R)
    E_o E|Q_o y - R y|^2 = tr R - tr(R S R)

A denoiser is D = y + sigma^2 score, so that errors of denoisers are sigma^4 times these.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from padis_jax.patches import Frame, tile

DEVIATION = 0.25  # of a pixel


class Errors(NamedTuple):
    """Mean squared errors of a pixel of denoised images, float.

    Attributes:
      least: of the image's own denoiser, which no other can be below.
      one: of one random tiling.
      average: of the average over all tilings.
      variance: E|D_o - mean D|^2 over the tilings; `one` is `average` + `variance`.
    """

    least: float
    one: float
    average: float
    variance: float


def covariance(side: int, length: float, *, smooth: bool = False) -> np.ndarray:
    """C of images of side x side pixels, float64 [n, n]: DEVIATION^2 exp(-d / length), or exp(-(d / length)^2 / 2)."""
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    d = np.linalg.norm(grid[:, None] - grid[None], axis=-1) / length
    return np.asarray(DEVIATION**2 * np.exp(-(d**2) / 2 if smooth else -d))


def blocks(frame: Frame) -> list[list[np.ndarray]]:
    """The pixels (indices into the image, row by row) of each tile of each tiling, without tiles of padding."""
    h, w = frame.image_shape
    plane = np.asarray(frame.pad(jnp.arange(1, h * w + 1, dtype=jnp.float32).reshape(h, w, 1)))
    rows, columns = (max(1, m) for m in frame.margin)
    tilings = []
    for offset in np.ndindex(rows, columns):
        tiles = np.asarray(tile(frame, jnp.asarray(plane), jnp.asarray(offset))).reshape(frame.patch_count, -1)
        cut = [pixels[pixels > 0].astype(int) - 1 for pixels in tiles]
        tilings.append([pixels for pixels in cut if pixels.size])
    return tilings


def precisions(frame: Frame, noisy: np.ndarray) -> np.ndarray:
    """Q_o of every tiling, [tilings, n, n], of S = `noisy`."""
    found = []
    for tiling in blocks(frame):
        q = np.zeros_like(noisy)
        for pixels in tiling:
            q[np.ix_(pixels, pixels)] = np.linalg.inv(noisy[np.ix_(pixels, pixels)])
        found.append(q)
    return np.stack(found)


def errors(frame: Frame, clean: np.ndarray, sigma: float) -> Errors:
    """Of all tilings of a frame at one noise level; `clean` is C."""
    noisy = clean + sigma**2 * np.eye(len(clean))
    each, whole = precisions(frame, noisy), np.trace(np.linalg.inv(noisy))
    mean = each.mean(0)
    traced, squared = np.trace(mean), np.trace(mean @ noisy @ mean)
    per_pixel = sigma**4 / len(clean)
    least = sigma**2 - per_pixel * whole
    return Errors(
        least,
        least + per_pixel * (whole - traced),
        least + per_pixel * (whole - 2 * traced + squared),
        per_pixel * (traced - squared),
    )


def of_tilings(count: int, of: int) -> float:
    """What remains of the variance of one tiling in the mean of `count` different ones of `of`."""
    return (of - count) / (count * max(1, of - 1))


def annealed(
    frame: Frame,
    clean: np.ndarray,
    ladder: np.ndarray,
    *,
    last: float = 0.0,
    count: int | None = 1,
    corrected: bool = False,
) -> np.ndarray:
    """The covariance of what ancestral sampling draws, [n, n]: exact, for a Gaussian image and a linear score.

        x <- x - w s^2 Q_o x + t sqrt(w) z,    w = 1 - (t / s)^2     from level s to t, with new tilings in each step

    (solvers/transitions.py). The tilings add (w s^2)^2 V with V = mean_o Q_o X Q_o - R X R, X the covariance of x, to
    the t^2 w I that is drawn; V is divided by what averaging `count` tilings leaves of it.

    Args:
      frame: of the image.
      clean: C.
      ladder: levels in falling order.
      last: the level after them; nothing can be taken from what is drawn in a step to 0.
      count: tilings averaged in each step; None for all, 0 for the image's own score.
      corrected: draw t^2 w I - (w s^2)^2 V instead, without its negative eigenvalues.

    Returns:
      The covariance after the last step.
    """
    n = len(clean)
    x = clean + ladder[0] ** 2 * np.eye(n)
    for level, after in zip(ladder, [*ladder[1:], last], strict=True):
        noisy = clean + level**2 * np.eye(n)
        each = np.linalg.inv(noisy)[None] if count == 0 else precisions(frame, noisy)
        share = of_tilings(count, len(each)) if count else 0.0
        weight = 1 - (after / level) ** 2
        mean = each.mean(0)
        spread = share * (np.mean(each @ x @ each, axis=0) - mean @ x @ mean) if share else np.zeros_like(x)
        step = np.eye(n) - weight * level**2 * mean
        added = (weight * level**2) ** 2 * spread
        drawn = after**2 * weight * np.eye(n)
        if corrected:
            values, vectors = np.linalg.eigh(drawn - added)
            drawn = (vectors * np.maximum(values, 0)) @ vectors.T
        x = step @ x @ step + added + drawn
    return x


def distance(found: np.ndarray, clean: np.ndarray) -> float:
    """||found - C|| / ||C|| (Frobenius)."""
    return float(np.linalg.norm(found - clean) / np.linalg.norm(clean))
