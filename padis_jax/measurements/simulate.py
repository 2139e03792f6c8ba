"""Simulated CT measurements, under two protocols that must not be confused.

Paper's protocol (PaDIS, arXiv 2406.02462, section 4): y = A x + sigma z, usually sigma = 0, with the very operator that
the reconstruction uses. It flatters every method: the model is exact.

Honest protocol: the object is finer than the reconstruction's pixels, the detector's bins have a width, and photons
are counted:

    a_i = mean over the bin's sub-rays of  int mu dl,    N_i ~ Poisson(I0 exp(-a_i)),    y_i = (ln(I0 / N_i) - b_i) / s

with the image interpolated linearly to a finer grid. An image value v has the attenuation mu = s v + t: in a window
[low, high] of HU, s = mu_water (high - low)/1000 and t = mu_water (low + 1000)/1000 (`attenuation.linear_attenuation`),
that is, mu = 2 mu_water v in the window of -1000 to 1000. What t adds, b_i = t int 1 dl over the image's rectangle,
weakens the rays and is taken off again. Units matter: sums over raw values would mean exp(-119). y is in the unit of
A x, image value times the operator's length.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jax import Array

from padis_jax.fields import single
from padis_jax.operators.linear import Operator
from padis_jax.operators.per_channel import per_channel, with_channels
from padis_jax.operators.tomography import RayTransform

MU_WATER = 0.02  # per mm, at about 70 keV
HUGE = 1e30  # settings stay within float32
# Photons. jax.random.poisson compares logarithms in float32, which spoils its tails from 1e6 on (at 1e8 the deviation
# is a fifth too large), and its integers end at 2^31. The normal distribution's skewness is off by 1 / sqrt(MANY).
MANY = 2e5


class Measurement(NamedTuple):
    """A sinogram with what is known of its noise.

    Attributes:
      y: in the unit of A x.
      noise_std: standard deviation of every entry, same shape and unit; from the counts alone where there are counts,
        0 where nothing is measured.
      protocol: "paper" or "honest" of a simulation; "measured" of a scan.
    """

    y: Array
    noise_std: Array
    protocol: Literal["paper", "honest", "measured"]

    @property
    def noise_sigma(self) -> Array:
        """Root mean square of `noise_std` over what is measured: ||noise|| / sqrt(measured entries)."""
        measured = jnp.maximum(jnp.count_nonzero(self.noise_std), 1)
        return jnp.sqrt(jnp.sum(self.noise_std**2) / measured.astype(self.noise_std.dtype))

    @property
    def noise(self) -> Array:
        """What methods are told: `noise_std` where measured entries differ in it, else `noise_sigma`, one number.

        While tracing, where that is not looked at, it is `noise_std`.
        """
        if isinstance(self.noise_std, jax.core.Tracer):
            return self.noise_std
        std = np.asarray(self.noise_std)  # not an operation of JAX, which a trace that goes on would take over
        return self.noise_std if np.any((std > 0) & (std < std.max())) else self.noise_sigma

    @property
    def evenness(self) -> float:
        """Harmonic over arithmetic mean of the variances `noise_std`^2 of what is measured: 1 where they are equal.

        While tracing, where they are not looked at, it is 1.
        """
        if isinstance(self.noise_std, jax.core.Tracer):
            return 1.0
        std = np.asarray(self.noise_std, np.float64)
        ratio = np.square(std[std > 0] / std.max(initial=0))
        return float(1 / (np.mean(ratio) * np.mean(1 / ratio))) if ratio.size else 1.0

    @property
    def noise_level(self) -> Array:
        """Expected ||noise|| / ||y||."""
        return jnp.linalg.norm(self.noise_std.ravel()) / jnp.linalg.norm(self.y.ravel())


def paper_measurement(key: Array, image: Array, operator: Operator, *, sigma: float = 0.0) -> Measurement:
    """y = A x + sigma z: the paper's protocol. Where nothing is measured there is no noise either, and y is 0.

    Args:
      key: random key; unused where `sigma` is 0.
      image: [H, W] or [H, W, C].
      operator: the one that will reconstruct. If it measures a part of its entries only, and has 0 for the others, its
        attribute `measured`, in the measurement's shape without channels, is 1 there and else 0.
      sigma: standard deviation of Gaussian noise, in the unit of A x.
    """
    if sigma < 0:
        raise ValueError(f"measurement: sigma must not be negative, got {sigma}")
    sinogram = single(operator(single(image)))
    noise_std = jnp.full(sinogram.shape, sigma, sinogram.dtype)
    measured = getattr(operator, "measured", None)
    if measured is not None:
        noise_std *= with_channels(measured, sinogram.shape).astype(sinogram.dtype)
    if sigma > 0:
        sinogram = sinogram + noise_std * jax.random.normal(key, sinogram.shape, sinogram.dtype)
    return Measurement(sinogram, noise_std, "paper")


def fine_line_integrals(image: Array, operator: RayTransform, *, refinement: int = 4, rays: int = 4) -> Array:
    """Line integrals of a finer object over bins with a width, [views, bins(, C)], in the unit of A x.

    Args:
      image: [H, W] or [H, W, C], interpolated linearly to a grid `refinement` times finer.
      operator: the coarse scan.
      rays: evenly spaced parallel rays averaged over each bin.

    Raises:
      ValueError: an image of the wrong shape, or counts below 1.
    """
    if refinement < 1 or rays < 1:
        raise ValueError(f"measurement: refinement and rays must be at least 1, got {refinement} and {rays}")
    if tuple(image.shape[:2]) != operator.image_shape:
        raise ValueError(f"measurement: expected an image of shape {operator.image_shape}, got {tuple(image.shape)}")
    coarse = operator.geometry
    height, width = (n * refinement for n in coarse.image_shape)
    # The centres of the sub-rays are evenly spaced over the whole detector: a detector with `rays` times the bins.
    fine = dataclasses.replace(
        coarse,
        image_shape=(height, width),
        pixel_size=coarse.pixel_size / refinement,
        detector_count=coarse.detector_count * rays,
        detector_spacing=coarse.detector_spacing / rays,
    )
    resized = jax.image.resize(image, (height, width, *image.shape[2:]), "linear")
    lines = per_channel(fine.project, resized)
    return reduce(lines, "view (bin ray) ... -> view bin ...", "mean", ray=rays)


def honest_measurement(
    key: Array,
    image: Array,
    operator: RayTransform,
    *,
    photons: float = 1e5,
    pixel_mm: float = 0.957,
    attenuation: float = 2 * MU_WATER,
    background: float = 0.0,
    refinement: int = 4,
    rays: int = 4,
) -> Measurement:
    """Poisson counts of a finer object, logarithm taken: the honest protocol.

    Args:
      key: random key.
      image: [H, W] or [H, W, C].
      operator: the scan; its pixel size may be in any unit, `pixel_mm` says what it is.
      photons: I0, photons per ray without the object. Means above `MANY` draw from the normal distribution.
      pixel_mm: side of a pixel in mm.
      attenuation: mu per mm that image value 1 has more than image value 0.
      background: mu per mm of image value 0, with which the image's whole rectangle weakens the rays.
      refinement: the finer grid, see `fine_line_integrals`.
      rays: sub-rays per bin, see there.

    Raises:
      ValueError: an image of the wrong shape, a setting that is not positive or too large for float32, or a background
        that is not finite.
    """
    check_counts(background, photons=photons, pixel_mm=pixel_mm, attenuation=attenuation)
    image = single(image)
    lines = fine_line_integrals(image, operator, refinement=refinement, rays=rays)
    # From the unit of A x to a pure number: operator length -> mm, image value -> mu.
    per_unit = attenuation * pixel_mm / operator.geometry.pixel_size
    below = jnp.zeros((), lines.dtype)
    if background:
        through = fine_line_integrals(jnp.ones_like(image), operator, refinement=refinement, rays=rays)
        below = per_unit * background / attenuation * through
    return counted(key, lines, per_unit=per_unit, below=below, photons=photons)


def check_counts(background: float, **positive: float) -> None:
    """Refuses settings of the honest protocol.

    Raises:
      ValueError: for one of `positive` that is not, or too large for float32, and a background that is not finite.
    """
    for name, value in positive.items():
        if not 0 < value < HUGE:
            raise ValueError(f"measurement: {name} must be positive and below {HUGE:g}, got {value}")
    if not abs(background) < HUGE:
        raise ValueError(f"measurement: background must be finite, got {background}")


def counted(key: Array, lines: Array, *, per_unit: float, below: Array | float, photons: float) -> Measurement:
    """Poisson counts of line integrals, logarithm taken.

    Args:
      key: random key.
      lines: in image value times the operator's length.
      per_unit: their attenuation, a pure number for each unit.
      below: what image value 0 attenuates beside them, which is taken off again.
      photons: per ray without the object.
    """
    counts = _counts(key, photons * jnp.exp(-(per_unit * lines + below)))
    sinogram = (jnp.log(photons / counts) - below) / per_unit
    return Measurement(sinogram, 1 / (jnp.sqrt(counts) * per_unit), "honest")


def _counts(key: Array, mean: Array) -> Array:
    """Poisson counts of these means, in their type; at least 1, as if a photon had come: the logarithm must exist."""
    with jax.enable_x64(False):  # the draws of 64 bits are others
        few = jax.random.poisson(key, jnp.minimum(mean, MANY)).astype(mean.dtype)
    many = mean + jnp.sqrt(mean) * jax.random.normal(jax.random.fold_in(key, 1), mean.shape, mean.dtype)
    return jnp.maximum(jnp.where(mean > MANY, many, few), 1)
