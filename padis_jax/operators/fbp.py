"""Filtered backprojection (Kak and Slaney, Principles of Computerized Tomographic Imaging, ch. 3).

For parallel beams, whose weights are here; those of fan beams are in `fan_fbp`, those of lines that are measured from
both sides in `shares`:

    f(x, y) = sum_t w_t q_t(x cos t + y sin t),   q_t = s (p_t * h),   sum_t w_t = pi

s is the bin spacing and h the band-limited ramp sampled in space: h_0 = 1/(4 s^2), h_n = -1/(pi n s)^2 for odd n, 0 for
even n (Kak and Slaney eq. 61). Sampling it in space, not |frequency| in frequency, keeps the image's mean right. A
window on the spectrum of h, one of five, tames noise (`ramp_spectrum`).
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.joseph import Table
from padis_jax.operators.per_channel import at_least_single

WEDGE = 8.0, 0.25  # a gap between two views of more typical ones, or a larger share of all angles, is a missing wedge
Filter = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


class Geometry(Protocol):
    """What filtered backprojection asks of a scan."""

    @property
    def detector_count(self) -> int:
        """Bins per view."""
        ...

    @property
    def detector_spacing(self) -> float:
        """Distance of two bins."""
        ...

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        ...

    def fbp_weights(self) -> np.ndarray:
        """Weight of every ray before filtering, [views, bins] or [views, 1]."""
        ...

    def widened(self) -> tuple[Geometry, int]:
        """The scan with more bins on either side, where filtered views are needed too, and how many more."""
        ...


class FbpTables(NamedTuple):
    """Of a scan, for views with a margin of bins on either side."""

    weights: Table  # [views, bins], of every ray before filtering, per bin spacing
    needed: Table  # [margin + bins + margin], where filtered views are


def fbp_tables(geometry: Geometry) -> FbpTables:
    """The margin is 0 or a power of two of at least a quarter of the detector, so that few shapes serve all offsets."""
    bins, more = geometry.detector_count, geometry.widened()[1]
    margin = 2 ** math.ceil(math.log2(max(more, bins / 4))) if more else 0
    needed = np.abs(np.arange(bins + 2 * margin) - (bins - 1) / 2 - margin) < bins / 2 + more
    return FbpTables(
        np.broadcast_to(geometry.fbp_weights() / geometry.detector_spacing, geometry.measurement_shape), needed
    )


class Rays(Protocol):
    """The tables of a scan."""

    @property
    def fbp(self) -> FbpTables:
        """Weights and margin."""
        ...

    def smear(self, sinogram: Array, margin: int = 0) -> Array:
        """Sum over the views, each interpolated at every pixel: [views, margin + bins + margin] -> [H, W]."""
        ...


class Projector(Protocol):
    """An operator with tables."""

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """(views, bins), or (D, views, bins) of an operator that has the `plane` of a slice."""
        ...

    def rays_for(self, array: Array) -> Rays:
        """What to weigh, filter and backproject with, in the array's precision."""
        ...


def ramp_spectrum(size: int, spacing: float, *, filter: Filter = "hann", cutoff: float = 0.9) -> np.ndarray:
    """Spectrum of s h, windowed, for a real FFT of even length `size`: [size/2 + 1].

    Args:
      size: length of the padded view.
      spacing: bin spacing s; the ramp comes out in its inverse.
      filter: the window: 1, sinc(f/2), cos(pi f/2), 0.54 + 0.46 cos(pi f), 0.5 + 0.5 cos(pi f), with f the frequency
        over the cut-off; zero above it.
      cutoff: fraction of the Nyquist frequency 1/(2 s), in (0, 1].

    Raises:
      ValueError: unknown filter, or cut-off out of range.
    """
    if filter not in get_args(Filter):
        raise ValueError(f"fbp: filter must be one of {', '.join(get_args(Filter))}, got {filter!r}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"fbp: cutoff is a fraction of the Nyquist frequency in (0, 1], got {cutoff}")
    n = np.minimum(np.arange(size), size - np.arange(size))
    odd = n % 2 == 1
    h = np.where(odd, -1.0 / (np.pi * np.where(odd, n, 1)) ** 2, 0.0)
    h[0] = 0.25
    f = np.arange(size // 2 + 1) / (size / 2) / cutoff
    window = {
        "ram-lak": np.ones_like(f),
        "shepp-logan": np.sinc(f / 2),
        "cosine": np.cos(np.pi * f / 2),
        "hamming": 0.54 + 0.46 * np.cos(np.pi * f),
        "hann": 0.5 + 0.5 * np.cos(np.pi * f),
    }[filter]
    return np.fft.rfft(h).real * np.where(f <= 1, window, 0) / spacing


class Gaps(NamedTuple):
    """The gaps between the views of a scan.

    Attributes:
      order: [views], their indices by angle, folded into the period.
      after: [views], the gap from each of these to the next, the last to the first.
      none: up to so much, two views are one: equal but for rounding.
      typical: the median of the others.
    """

    order: np.ndarray
    after: np.ndarray
    none: float
    typical: float


def gaps(angles: tuple[float, ...], period: float) -> Gaps:
    """Of the views, whose angles are taken modulo the period.

    Angles may be rounded to float32 or to four digits, but a hundredth of the mean gap is a gap.
    """
    folded = np.mod(np.asarray(angles, np.float64), period)
    order = np.argsort(folded, kind="stable")
    after = np.diff(folded[order], append=folded[order[0]] + period)
    mean = (period - after.max()) / max(1, len(after) - 1)  # of what is measured, if there is one wedge
    none = float(max(1e-9, min(1e-2 * mean, 2e-4)))
    return Gaps(order, after, none, float(np.median(after[after > none])))


def view_weights(angles: tuple[float, ...], period: float = np.pi) -> np.ndarray:
    """Share of the half turn that each view stands for, [views], so that crowded angles do not count for more.

    Angles are taken modulo pi (a view and its opposite carry the same rays), or another period; each has half of the
    gap on either side. They are assumed to cover it; a missing wedge (WEDGE) is not filled.
    """
    order, after, none, typical = gaps(angles, period)
    missing = (after > WEDGE[0] * typical) | ((after > WEDGE[1] * period) & (after > 1.5 * typical))
    after = np.where(missing, typical, after)
    weights = np.empty(len(order))
    weights[order] = (after + np.roll(after, 1)) / 2
    # Repeated angles share evenly; the gaps alone would leave those inside a run of three with nothing. Also across the
    # seam, where folding may send one of a pair to the far end.
    run = np.cumsum(np.roll(after, 1) > none)
    run[run == 0] = run[-1]
    for label in np.unique(run):
        members = order[run == label]
        weights[members] = weights[members].mean()
    return weights


def fbp(operator: Projector, sinogram: Array, *, filter: Filter = "hann", cutoff: float = 0.9) -> Array:
    """Filtered backprojection of a sinogram.

    Args:
      operator: a `ParallelBeam` or a `FanBeam`.
      sinogram: [views, bins] or [views, bins, C] line integrals, real or complex; [D, views, bins] of an operator on
        volumes.
      filter: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann".
      cutoff: fraction of the Nyquist frequency of the detector.

    Returns:
      [H, W] or [H, W, C], in the unit of the image; [D, H, W] of volumes.

    Raises:
      ValueError: a sinogram of the wrong shape, an unknown filter, or a cut-off out of range.
    """
    sinogram = jnp.asarray(sinogram)
    if len(operator.measurement_shape) == 3:
        plane = getattr(operator, "plane", None)
        if plane is None or sinogram.shape != operator.measurement_shape:
            what = f"expected {operator.measurement_shape}, got {sinogram.shape}" if plane else "a cone beam has `fdk`"
            raise ValueError(f"fbp: {what}")
        return jax.lax.map(lambda row: fbp(plane, row, filter=filter, cutoff=cutoff), sinogram)
    views, bins = operator.measurement_shape
    if sinogram.ndim not in (2, 3) or sinogram.shape[:2] != (views, bins):
        raise ValueError(
            f"fbp: expected a sinogram of shape {(views, bins)} or {(views, bins, 'C')}, got {sinogram.shape}"
        )
    if jnp.iscomplexobj(sinogram):  # a real linear map: of real and imaginary part alike
        parts = (fbp(operator, part, filter=filter, cutoff=cutoff) for part in (sinogram.real, sinogram.imag))
        return jax.lax.complex(*parts)
    sinogram = sinogram.astype(at_least_single(sinogram.dtype))
    return _fbp(operator.rays_for(sinogram), sinogram, filter, cutoff)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _fbp(rays: Rays, sinogram: Array, filter: Filter, cutoff: float) -> Array:
    wide, bins = rays.fbp.needed.size, sinogram.shape[1]
    margin = (wide - bins) // 2
    size = 2 ** int(np.ceil(np.log2(2 * wide)))  # room for the whole of h, so that views do not wrap around
    spectrum = ramp_spectrum(size, 1.0, filter=filter, cutoff=cutoff)
    factor = jnp.asarray(spectrum[None].astype(sinogram.dtype))
    weights = rays.fbp.weights.astype(sinogram.dtype)

    def reconstruct(plane: Array) -> Array:
        views = jnp.pad(plane * weights, ((0, 0), (margin, margin)))
        spectra = jnp.fft.rfft(views, size, axis=1)
        filtered = jnp.fft.irfft(spectra * factor.astype(spectra.dtype), size, axis=1)[:, :wide]
        return rays.smear(jnp.where(rays.fbp.needed[None], filtered, 0), margin)

    if sinogram.ndim == 2:
        return reconstruct(sinogram)
    return jax.vmap(reconstruct, in_axes=2, out_axes=2)(sinogram)
