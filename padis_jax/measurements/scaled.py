"""A measured scan as the solvers take it: in image value times pixels, with the noise of its entries.

Which attenuations the values 0 and 1 stand for follows from the window where that is in HU; for others 0 is no
attenuation, and that of 1 is given or estimated. `attenuation` does the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.measurements.attenuation import attenuation_window, rescale_attenuation
from padis_jax.measurements.load import MeasuredScan, MeasurementConfig
from padis_jax.measurements.simulate import MU_WATER, Measurement
from padis_jax.operators.tomography import RayTransform
from padis_jax.window import HOUNSFIELD, Window


class ScaledScan(NamedTuple):
    """A scan as the solvers take it.

    Attributes:
      operator: in pixels.
      measurement: in image value times pixels.
      pixel_mm: side of a pixel.
      attenuation: per mm, of the image values 0 and 1.
    """

    operator: RayTransform
    measurement: Measurement
    pixel_mm: float
    attenuation: Window


def scaled_scan(
    config: MeasurementConfig,
    scan: MeasuredScan,
    window: Window,
    image_shape: tuple[int, int],
    *,
    operator: RayTransform | None = None,
) -> ScaledScan:
    """The scan of an image in [0, 1].

    Args:
      config: the settings.
      scan: from `load_scan`.
      window: of the prior's images.
      image_shape: of the prior's images.
      operator: from an earlier call for another scan of the same geometry.

    Raises:
      UserError: if the image reaches beyond the source, or no attenuation can be estimated.
    """
    pixel = config.pixel_mm or scan.geometry.field_mm / max(image_shape)
    operator = operator or scan.geometry.operator(image_shape, pixel)
    if window.unit == HOUNSFIELD.unit:
        attenuation = attenuation_window(window, mu_water=config.attenuation or MU_WATER)
    else:
        attenuation = Window("1/mm", 0.0, config.attenuation or _bright(config, scan, operator, pixel))
    y = rescale_attenuation(jnp.asarray(scan.sinogram), operator, image_shape, attenuation, length_mm=pixel)
    noise = config.noise or _noise(scan.sinogram, scan.relative_std)
    std = jnp.broadcast_to(jnp.asarray(noise / ((attenuation.high - attenuation.low) * pixel), jnp.float32), y.shape)
    return ScaledScan(operator, Measurement(y, std, "measured"), pixel, attenuation)


def _bright(config: MeasurementConfig, scan: MeasuredScan, operator: RayTransform, pixel: float) -> float:
    """The attenuation per mm of the bright parts of the FBP; while tracing that of water, if there is any."""
    image = operator.start(jnp.asarray(scan.sinogram))
    if isinstance(image, jax.core.Tracer):
        found = MU_WATER if scan.sinogram.max(initial=0) > 0 else 0.0
    else:
        found = float(np.percentile(np.asarray(image) / pixel, 99.5))
    if not found > 0:
        raise UserError(f"{config.path}: its FBP has no positive values; give --measurement.attenuation")
    return found


def _noise(sinogram: np.ndarray, relative: np.ndarray | None) -> float | np.ndarray:
    """Standard deviation of independent noise, from second differences along the detector (the object is smoother).

    One number, or k r_i where those of the entries are in the ratios r: a second difference then has the variance
    k^2 (r_{i-1}^2 + 4 r_i^2 + r_{i+1}^2).
    """
    second = np.abs(np.diff(sinogram.astype(np.float64), 2, axis=1))
    if not second.size:
        return 0.0
    if relative is None:
        return float(1.4826 * np.median(second) / np.sqrt(6))
    r = relative.astype(np.float64)
    spread = np.sqrt(r[:, :-2] ** 2 + 4 * r[:, 1:-1] ** 2 + r[:, 2:] ** 2)
    return np.asarray(1.4826 * np.median(second / spread) * r)
