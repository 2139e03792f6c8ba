"""Beam hardening of an object of one material, taken out of measurements by the measurements themselves.

Line integrals of a polychromatic beam grow less than in proportion to the path through the material. A polynomial

    p(y) = c_1 y + c_2 y^2 + ... + c_n y^n

of the measured values brings the proportion back. Its coefficients are the least-squares fit of p(y) to A t, the paths
through a template t: the threshold of a reconstruction, 1 in the material and 0 elsewhere, made again from the
corrected values a few times. (Empirical cupping correction, Kachelriess, Sourbelle and Kalender, Medical Physics 33
(2006) 1269, fits the images of the powers instead; for that the scan must cover all directions evenly.) Corrected
values are paths through the material in the operator's unit of length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from skimage.filters import threshold_otsu

from padis_jax.operators import fbp
from padis_jax.operators.tomography import RayTransform
from padis_jax.solvers.tv import TV, total_variation

DEGREE, ROUNDS, EDGE = 3, 3, 0.02


class Hardening(NamedTuple):
    """A calibration of scanner and material.

    Attributes:
      coefficients: c_1 .. c_n, per unit of length.
      misfit: root mean square of p(y) - A t, in that unit: noise and what the model leaves out.
    """

    coefficients: np.ndarray
    misfit: float

    def paths(self, sinogram: np.ndarray) -> np.ndarray:
        """p(y) of line integrals [views, bins], their air set to 0 first."""
        y = without_air(sinogram)
        return np.polynomial.Polynomial([0, *self.coefficients])(y).astype(np.float32)


def without_air(sinogram: np.ndarray) -> np.ndarray:
    """Less the median of the outermost bins, a share EDGE of all on either side, whose rays miss the object."""
    edge = max(1, round(EDGE * sinogram.shape[1]))
    return sinogram - np.median(np.concatenate([sinogram[:, :edge], sinogram[:, -edge:]], axis=1))


def fit_hardening(operator: RayTransform, sinogram: np.ndarray, *, tv_weight: float = 1.0) -> Hardening:
    """The calibration by a scan that sees the object from most sides.

    Args:
      operator: of the scan.
      sinogram: line integrals [views, bins].
      tv_weight: of the reconstructions that the template is the threshold of.
    """
    y = without_air(sinogram)
    image = np.asarray(fbp(operator, jnp.asarray(y)))
    values = y / np.median(image[image > threshold_otsu(image)])
    powers = np.stack([y.ravel() ** k for k in range(1, DEGREE + 1)], axis=-1)
    settings = TV(weight=tv_weight, iterations=300)
    for _ in range(ROUNDS):
        image = np.asarray(total_variation(jnp.asarray(values)[..., None], operator, settings=settings).image[..., 0])
        paths = np.asarray(operator(jnp.asarray(image > threshold_otsu(image), jnp.float32)))
        coefficients = np.linalg.lstsq(powers, paths.ravel(), rcond=None)[0]
        values = (powers @ coefficients).reshape(y.shape).astype(np.float32)
    return Hardening(coefficients, float(np.sqrt(np.mean((values - paths) ** 2))))
