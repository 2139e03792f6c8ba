"""Measurements of images in their own unit -> measurements of the images in [0, 1] that a prior knows.

With the window v = low + (high - low) x, an affine map, a linear operator A sees an offset as well as a scale:

    y = A v = low A 1 + (high - low) A x,        A x = (y - low A 1) / (high - low),

where 1 is the image of ones. In HU the attenuation is mu = mu_water (1 + HU / 1000), so for its line integrals the ends
of the window become attenuations, and lengths go from the operator's unit to mm:

    y = s A mu,    s = mm per unit of the operator's length,    mu_low = mu_water (1 + low / 1000), mu_high likewise.

A standard deviation of y has no offset: it is divided by s (high - low) only.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from padis_jax.measurements.simulate import MU_WATER
from padis_jax.operators.linear import Operator
from padis_jax.window import HOUNSFIELD, Window


def rescale_measurement(measurement: Array, operator: Operator, image_shape: tuple[int, ...], window: Window) -> Array:
    """A v -> A x, for images v in the unit of the window and x in [0, 1].

    Args:
      measurement: y = A v, [...] as the operator gives it, or with channels behind.
      operator: A, linear.
      image_shape: of what A takes: [H, W] or [H, W, C].
      window: `low` and `high` in the unit of v.

    Returns:
      (y - low A 1) / (high - low), same shape.

    Raises:
      ValueError: if the measurement is not one of this operator.
    """
    scaled = measurement / (window.high - window.low)
    if window.low == 0.0:
        return scaled
    offset = operator(jnp.full(image_shape, window.low / (window.high - window.low), scaled.dtype))
    if scaled.ndim == offset.ndim + 1:
        offset = offset[..., None]
    fits = scaled.ndim == offset.ndim and all(m in (1, n) for m, n in zip(offset.shape, scaled.shape, strict=True))
    if not fits:
        raise ValueError(f"attenuation: the operator gives {offset.shape}, the measurement has {scaled.shape}")
    return scaled - offset


def attenuation_window(window: Window, *, mu_water: float = MU_WATER) -> Window:
    """The attenuations per mm of the ends of a window in HU.

    Args:
      window: in HU.
      mu_water: attenuation of water per mm, at the energy of the scan.

    Raises:
      ValueError: for a window in another unit, or an attenuation that is not positive.
    """
    if window.unit != HOUNSFIELD.unit:
        raise ValueError(f"attenuation: a window in HU is needed for attenuations, got {window}")
    if not mu_water > 0:
        raise ValueError(f"attenuation: mu_water {mu_water} must be positive")
    return Window("1/mm", mu_water * (1 + window.low / 1000), mu_water * (1 + window.high / 1000))


def linear_attenuation(window: Window) -> tuple[float, float]:
    """(attenuation, background) per mm of `measurement.honest_measurement` for images of a window.

    Args:
      window: of the image. One that is not in HU tells no attenuation: 0 is then taken for air, 1 for twice that of
        water, as in the window of -1000 to 1000 HU.
    """
    ends = attenuation_window(window if window.unit == HOUNSFIELD.unit else HOUNSFIELD)
    return ends.high - ends.low, ends.low


def rescale_attenuation(
    line_integrals: Array, operator: Operator, image_shape: tuple[int, ...], window: Window, *, length_mm: float
) -> Array:
    """Line integrals of the attenuation, pure numbers -> A x for x in [0, 1].

    Args:
      line_integrals: int mu dl, [views, bins] or with channels behind.
      operator: A, whose lengths are in a unit of its own.
      image_shape: of what A takes: [H, W] or [H, W, C].
      window: in 1/mm: the attenuations of x = 0 and x = 1, of `attenuation_window` where these are HU.
      length_mm: mm in one unit of the operator's length; the side of a pixel where it counts in pixels.

    Raises:
      ValueError: for a window in another unit, or a length that is not positive.
    """
    if window.unit != "1/mm":
        raise ValueError(f"attenuation: a window in 1/mm is needed for line integrals, got {window}")
    if not length_mm > 0:
        raise ValueError(f"attenuation: length_mm {length_mm} must be positive")
    return rescale_measurement(line_integrals / length_mm, operator, image_shape, window)
