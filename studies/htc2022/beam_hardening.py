"""Beam hardening of an object of one material, and a shifted detector, found from the measurements themselves.

Line integrals of a polychromatic beam grow more slowly than the path through the material. A polynomial

    p(y) = c_1 y + c_2 y^2 + ... + c_n y^n

of the measured values restores the proportion. Its coefficients, and the shift d of the detector along its bins, are
the least-squares fit of

    p(y) = A t + d du(A t),      du the derivative along the detector

to the paths A t through a template t: the threshold of a reconstruction, 1 in the material and 0 elsewhere, computed
again a few times from the corrected values with the shifted detector. (Empirical cupping correction, Kachelriess,
Sourbelle and Kalender, Medical Physics 33 (2006) 1269, fits the images of the powers instead; for that the scan must
cover all directions evenly.) Corrected values are paths through the material in the operator's unit of length.

The residual of the fit grows with the path t. It is taken for noise of the variance a + b t^2, a and b the non-negative
least-squares fit to its squares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls
from skimage.filters import threshold_otsu

from padis_jax.operators import fbp
from padis_jax.operators.tomography import RayTransform
from padis_jax.solvers.tv import TV, total_variation

DEGREE, ROUNDS, EDGE, LEAST = 3, 3, 0.02, 0.25


class Calibration(NamedTuple):
    """Of scanner and material.

    Attributes:
      coefficients: c_1 .. c_n, per unit of length.
      misfit: root mean square of p(y) - A t - d du(A t), in that unit: noise and what the model leaves out.
      variance: a and b, of that misfit on a path of any length.
      shift: of the detector along its bins, in that unit; to be added to `detector_offset`.
    """

    coefficients: np.ndarray
    misfit: float
    variance: tuple[float, float]
    shift: float = 0.0

    def paths(self, sinogram: np.ndarray) -> np.ndarray:
        """p(y) of line integrals [views, bins], their air set to 0 first."""
        y = without_air(sinogram)
        return np.polynomial.Polynomial([0, *self.coefficients])(y).astype(np.float32)

    def noise(self, paths: np.ndarray) -> np.ndarray:
        """sqrt(a + b t^2), the deviation of corrected values t of any shape; LEAST misfits at least, as a may be 0."""
        constant, proportional = self.variance
        deviation = np.sqrt(constant + proportional * np.square(paths))
        return np.maximum(deviation, LEAST * self.misfit).astype(np.float32)


def without_air(sinogram: np.ndarray) -> np.ndarray:
    """Less the median of the outermost bins, a share EDGE of all on either side, whose rays miss the object."""
    edge = max(1, round(EDGE * sinogram.shape[1]))
    return sinogram - np.median(np.concatenate([sinogram[:, :edge], sinogram[:, -edge:]], axis=1))


def calibrate(scanner: Callable[[float], RayTransform], sinogram: np.ndarray) -> Calibration:
    """The calibration by a scan that sees the object from most sides.

    Args:
      scanner: shift of the detector -> operator of the scan. The pixels should be about as large as a bin, seen from
        the centre: what a template of coarse pixels gets wrong counts as misfit.
      sinogram: line integrals [views, bins].
    """
    y = without_air(sinogram)
    operator, shift = scanner(0.0), 0.0
    image = np.asarray(fbp(operator, jnp.asarray(y)))
    values = y / np.median(image[image > threshold_otsu(image)])
    powers = np.stack([y.ravel() ** k for k in range(1, DEGREE + 1)], axis=-1)
    settings = TV(weight=1.0, iterations=300)
    for _ in range(ROUNDS):
        image = np.asarray(total_variation(jnp.asarray(values)[..., None], operator, settings=settings).image[..., 0])
        paths = np.asarray(operator(jnp.asarray(image > threshold_otsu(image), jnp.float32)))
        slope = np.gradient(paths, operator.geometry.detector_spacing, axis=1)
        *coefficients, change = np.linalg.lstsq(np.c_[powers, -slope.ravel()], paths.ravel(), rcond=None)[0]
        values = (powers @ np.asarray(coefficients)).reshape(y.shape).astype(np.float32)
        shift += float(change)
        operator = scanner(shift)
    squares = np.square(values - (paths + change * slope)).ravel()
    (constant, proportional), _ = nnls(np.stack([np.ones(paths.size), np.square(paths).ravel()], axis=-1), squares)
    return Calibration(
        np.asarray(coefficients), float(np.sqrt(np.mean(squares))), (float(constant), float(proportional)), shift
    )
