"""What a reconstruction of a known image is worth, and what it took."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.runs.case import Scene
from padis_jax.images import HOUNSFIELD
from padis_jax.metrics import head_mask, psnr, relative_error, rmse, ssim, ssim_gaussian


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      method: its name.
      psnr: dB, after clipping to [0, 1].
      ssim: 7 x 7 uniform window.
      ssim_gaussian: 11 x 11 Gaussian window.
      rmse: root mean square error in the window's unit, within the head where the unit is HU.
      residual: ||y - A x|| / ||y||.
      evaluations: network evaluations of the whole image.
      seconds: wall-clock, compilation included.
    """

    method: str
    psnr: float
    ssim: float
    ssim_gaussian: float
    rmse: float
    residual: float
    evaluations: int
    seconds: float


def score_mask(scene: Scene) -> np.ndarray | None:
    """The pixels that count for errors in a unit: the head where that is HU, otherwise all."""
    return head_mask(scene.truth, window=scene.window) if scene.window.unit == HOUNSFIELD.unit else None


def score(method: str, image: Array | np.ndarray, scene: Scene, *, evaluations: int = 0, seconds: float = 0.0) -> Row:
    """Metrics of an image [H, W, C], after clipping to [0, 1]."""
    clipped = jnp.clip(jnp.asarray(image), 0, 1)
    return Row(
        method=method,
        psnr=float(psnr(clipped, scene.truth)),
        ssim=float(ssim(clipped, scene.truth)),
        ssim_gaussian=float(ssim_gaussian(clipped, scene.truth)),
        rmse=float(rmse(clipped, scene.truth, mask=score_mask(scene), window=scene.window)),
        residual=float(relative_error(scene.operator(jnp.asarray(image)), scene.measurement.y)),
        evaluations=evaluations,
        seconds=seconds,
    )


def timed(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """(result, seconds), waiting for asynchronous work."""
    begin = time.perf_counter()
    result = jax.block_until_ready(function(*args, **kwargs))
    return result, time.perf_counter() - begin
