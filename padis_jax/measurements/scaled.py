"""A measured scan as the solvers take it: in image value times pixels, with the noise of its entries.

Which attenuations the values 0 and 1 stand for follows from the window where that is in HU; for others 0 is no
attenuation, and that of 1 is given or estimated. `attenuation` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.measurements.attenuation import attenuation_window, rescale_attenuation
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.load import MeasuredScan, MeasurementConfig
from padis_jax.measurements.simulate import MU_WATER, Measurement
from padis_jax.operators.tomography import RayTransform
from padis_jax.window import HOUNSFIELD, Window


class ScaledScan(NamedTuple):
    """A scan as the solvers take it.

    Attributes:
      operator: in pixels; on volumes where `scaled_lines` was given one.
      measurement: in image value times pixels.
      pixel_mm: side of a pixel.
      attenuation: per mm, of the image values 0 and 1.
    """

    operator: Any
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
    pixel = pixel_of(config, scan.geometry, image_shape)
    operator = operator or scan.geometry.operator(image_shape, pixel)
    return scaled_lines(config, scan.sinogram, scan.relative_std, operator, pixel, window)


def scaled_lines(
    config: MeasurementConfig,
    lines: np.ndarray,
    relative_std: np.ndarray | None,
    operator: Any,
    pixel: float,
    window: Window,
) -> ScaledScan:
    """Line integrals of an image or of a volume, in the unit that the operator works in.

    Args:
      config: the settings.
      lines: as the operator gives them; their last axis is along the detector.
      relative_std: of each, up to a common factor; None where nothing tells them apart.
      operator: in pixels.
      pixel: side of a pixel, in mm.
      window: of the prior's images.

    Raises:
      UserError: if no attenuation can be estimated.
    """
    attenuation = _attenuation(config, lines, window, operator.start, pixel)
    y = rescale_attenuation(jnp.asarray(lines), operator, operator.image_shape, attenuation, length_mm=pixel)
    noise = config.noise or _noise(lines, relative_std)
    std = jnp.broadcast_to(jnp.asarray(noise / ((attenuation.high - attenuation.low) * pixel), jnp.float32), y.shape)
    return ScaledScan(operator, Measurement(y, std, "measured"), pixel, attenuation)


def pixel_of(config: MeasurementConfig, geometry: ScanGeometry | ConeScan, image_shape: tuple[int, int]) -> float:
    """Side of a pixel in mm: what the settings say, else that which fits the field of view into the image."""
    return config.pixel_mm or geometry.field_mm / max(image_shape)


Start = Callable[[Array], Array]


def start_of(geometry: ScanGeometry, image_shape: tuple[int, int], pixel_mm: float) -> Start:
    """The filtered backprojection of a scan's sinograms, by one program, and without the operator's norm."""
    return jax.jit(lambda sinogram: geometry.operator(image_shape, pixel_mm).start(sinogram))


def scaled_values(
    config: MeasurementConfig, scan: MeasuredScan, window: Window, image_shape: tuple[int, int], start: Start
) -> tuple[np.ndarray, np.ndarray]:
    """(sinogram, noise) in image value times pixels, but for the window's offset: what a trace has no values of.

    Args:
      config: the settings.
      scan: from `load_scan`.
      window: of the prior's images.
      image_shape: likewise.
      start: of `start_of`; called only where an attenuation is to be estimated.

    Raises:
      UserError: if it cannot.
    """
    pixel = pixel_of(config, scan.geometry, image_shape)
    return lines_values(config, scan.sinogram, scan.relative_std, window, start, pixel)


def lines_values(
    config: MeasurementConfig,
    lines: np.ndarray,
    relative_std: np.ndarray | None,
    window: Window,
    start: Start,
    pixel: float,
) -> tuple[np.ndarray, np.ndarray]:
    """`scaled_values` of line integrals of an image or of a volume; the arguments are those of `scaled_lines`."""
    attenuation = _attenuation(config, lines, window, start, pixel)
    unit = (attenuation.high - attenuation.low) * pixel
    noise = config.noise or _noise(lines, relative_std)
    return lines.astype(np.float64) / unit, np.asarray(noise, np.float64) / unit


def _attenuation(config: MeasurementConfig, lines: np.ndarray, window: Window, start: Start, pixel: float) -> Window:
    """Per mm, of the image values 0 and 1; where it is estimated, and a trace has no values, that of water."""
    if window.unit == HOUNSFIELD.unit:
        return attenuation_window(window, mu_water=config.attenuation or MU_WATER)
    return Window("1/mm", 0.0, config.attenuation or _bright(config, start(jnp.asarray(lines)), pixel))


def _bright(config: MeasurementConfig, image: Array, pixel: float) -> float:
    """The attenuation per mm of the bright parts of an FBP."""
    if isinstance(image, jax.core.Tracer):
        return MU_WATER
    found = float(np.percentile(np.asarray(image) / pixel, 99.5))
    if not found > 0:
        raise UserError(f"{config.path}: its FBP has no positive values; give --measurement.attenuation")
    return found


def _noise(sinogram: np.ndarray, relative: np.ndarray | None) -> float | np.ndarray:
    """Standard deviation of independent noise, from second differences along the detector (the object is smoother).

    One number, or k r_i where those of the entries are in the ratios r: a second difference then has the variance
    k^2 (r_{i-1}^2 + 4 r_i^2 + r_{i+1}^2).
    """
    second = np.abs(np.diff(sinogram.astype(np.float64), 2, axis=-1))
    if not second.size:
        return 0.0
    if relative is None:
        return float(1.4826 * np.median(second) / np.sqrt(6))
    r = relative.astype(np.float64)
    spread = np.sqrt(r[..., :-2] ** 2 + 4 * r[..., 1:-1] ** 2 + r[..., 2:] ** 2)
    return np.asarray(1.4826 * np.median(second / spread) * r)
