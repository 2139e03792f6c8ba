"""Tomography: line integrals of an image, parallel or from a source, as an operator with an exact transpose.

The rays are those of `parallel` and `fan`, their sums those of `joseph`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.algebra import Composable
from padis_jax.operators.fan import FanGeometry
from padis_jax.operators.fan_rays import FanRays
from padis_jax.operators.fbp import fbp
from padis_jax.operators.kept import kept
from padis_jax.operators.least_squares import pseudo_inverse
from padis_jax.operators.norm import lanczos_norm, operator_norm
from padis_jax.operators.parallel import ParallelGeometry, ParallelRays
from padis_jax.operators.per_channel import checked, leaf, per_channel
from padis_jax.operators.scan_checks import checked_scan, warn_of_degrees
from padis_jax.operators.slices import SliceTransform, shape_of_slices

Geometry = ParallelGeometry | FanGeometry
Angles = Sequence[float] | np.ndarray | Array


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rays", "words", "norm"], meta_fields=["kind"])
@dataclasses.dataclass(frozen=True, eq=False)
class RayTransform(Composable):
    """Line integrals as an operator, built by `ParallelBeam` and `FanBeam`.

    All numbers are leaves: scans of other angles, distances and offsets are arguments of the programs compiled for one.

    Attributes:
      rays: the tables that project, in the precision that JAX had when they were built.
      words: numbers of the geometry (`Scan.words`), of NumPy, which an operator that is built in a trace can read.
      norm: ||A||.
      kind: of geometry.
    """

    rays: ParallelRays | FanRays
    words: np.ndarray | Array
    norm: Array
    kind: type[Geometry]

    @property
    def geometry(self) -> Geometry:
        """The scan, but not within a trace that has this operator as an argument."""
        return self.kind.from_words(self.image_shape, self.measurement_shape[1], self.words)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rays.image_shape

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        views, bins = self.rays.fbp.weights.shape
        return views, bins

    def __call__(self, image: Array) -> Array:
        """Line integrals, in the image's unit times the unit of length: [H, W(, C)] -> [views, bins(, C)]."""
        image = checked("image", image, self.image_shape)
        return per_channel(self.rays_for(image).project, image)

    def T(self, measurement: Array) -> Array:
        """The exact transpose: [views, bins(, C)] -> [H, W(, C)]."""
        measurement = checked("measurement", measurement, self.measurement_shape)
        return per_channel(self.rays_for(measurement).backproject, measurement)

    def rays_for(self, array: Array) -> ParallelRays | FanRays:
        """The tables in the array's precision, where the geometry is at hand: built in single, used in double."""
        single = self.rays.fbp.weights.dtype == np.float32
        if single and jnp.finfo(array.dtype).bits > 32 and not isinstance(self.words, jax.core.Tracer):
            return self.geometry.rays()
        return self.rays

    def start(self, measurement: Array) -> Array:
        """Filtered backprojection with the Hann filter cut off at 0.9 of the Nyquist frequency."""
        return fbp(self, measurement)

    iterative = True  # pinv is by CG

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y by conjugate gradients, to 1e-6 in float32 (a few hundred of A and A').

        With few views they may stop earlier, at 2000 iterations (`least_squares.pseudo_inverse`).
        """
        measurement = checked("measurement", measurement, self.measurement_shape)
        rays = self.rays_for(measurement)
        return per_channel(functools.partial(pseudo_inverse, rays.project, rays.backproject), measurement)


@overload
def ParallelBeam(
    *,
    image_shape: tuple[int, int],
    angles: Angles,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> RayTransform: ...
@overload
def ParallelBeam(
    *,
    volume_shape: tuple[int, int, int],
    angles: Angles,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> SliceTransform: ...
def ParallelBeam(  # noqa: N802 (a factory named like the object it makes)
    *,
    image_shape: tuple[int, int] | None = None,
    volume_shape: tuple[int, int, int] | None = None,
    angles: Angles,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> RayTransform | SliceTransform:
    """A parallel-beam scan.

    >>> import jax.numpy as jnp, numpy as np, padis_jax as pj
    >>> A = pj.ParallelBeam(image_shape=(32, 32), angles=np.arange(6) * np.pi / 6, detector_count=64)
    >>> y = A(jnp.ones((32, 32)))
    >>> y.shape, A.T(y).shape, round(float(y[0].sum()))  # the area, in each view
    ((6, 64), (32, 32), 1024)
    >>> V = pj.ParallelBeam(volume_shape=(5, 32, 32), angles=np.arange(6) * np.pi / 6, detector_count=64)
    >>> V(jnp.ones((5, 32, 32))).shape
    (5, 6, 64)

    Args:
      image_shape: (H, W) in pixels; or
      volume_shape: (D, H, W): every slice is projected alike, [D, H, W] -> [D, views, bins].
      angles: [views] in radians, in any order, repeated or beyond pi if need be. Ray: x cos t + y sin t = u.
      detector_count: bins per view.
      detector_spacing: distance of two bins.
      pixel_size: width of a pixel, in the unit of `detector_spacing`; line integrals come out in it.
      detector_offset: u of the detector's centre, in the same unit.
      rotation_offset: where the rotation axis, and with it the image's centre, is seen on the detector: at this u, in
        every view. Ray: x cos t + y sin t + rotation_offset = u, so that here, unlike in `FanBeam`, it is the same as
        a detector offset of the other sign.
      pixel_aspect: height of a pixel over its width.

    Raises:
      ValueError: both shapes or none, a size that is not positive, or angles that are not a non-empty list of finite
        numbers.
    """
    plane, depth = shape_of_slices("ParallelBeam", image_shape, volume_shape)
    name, lengths = "ParallelBeam", {"detector_spacing": detector_spacing, "pixel_size": pixel_size}
    lengths["pixel_aspect"] = pixel_aspect
    offsets = {"detector_offset": detector_offset, "rotation_offset": rotation_offset}
    scan = checked_scan(name, plane, angles, detector_count, lengths, offsets)
    warn_of_degrees(name, angles)
    return _of_slices(ray_transform(ParallelGeometry(**scan)), depth)


@overload
def FanBeam(
    *,
    image_shape: tuple[int, int],
    angles: Angles,
    source_distance: float,
    detector_distance: float,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> RayTransform: ...
@overload
def FanBeam(
    *,
    volume_shape: tuple[int, int, int],
    angles: Angles,
    source_distance: float,
    detector_distance: float,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> SliceTransform: ...
def FanBeam(  # noqa: N802 (a factory named like the object it makes)
    *,
    image_shape: tuple[int, int] | None = None,
    volume_shape: tuple[int, int, int] | None = None,
    angles: Angles,
    source_distance: float,
    detector_distance: float,
    detector_count: int = 512,
    detector_spacing: float = 1.0,
    pixel_size: float = 1.0,
    detector_offset: float = 0.0,
    rotation_offset: float = 0.0,
    pixel_aspect: float = 1.0,
) -> RayTransform | SliceTransform:
    """A fan-beam scan with a flat detector.

    In view t the source is at (d sin t, -d cos t), the detector's centre at (-e sin t, e cos t), and bins lie along
    (cos t, sin t), all three shifted by -rotation_offset (cos t, sin t): ASTRA's 'fanflat', whose rotation_offset is 0.

    >>> import jax.numpy as jnp, numpy as np, padis_jax as pj
    >>> angles = np.arange(12) * np.pi / 6
    >>> A = pj.FanBeam(image_shape=(16, 16), angles=angles, source_distance=40, detector_distance=20, detector_count=48)
    >>> y = A(jnp.ones((16, 16, 1)))
    >>> y.shape, A.start(y).shape  # filtered backprojection
    ((12, 48, 1), (16, 16, 1))

    Args:
      image_shape: (H, W) in pixels; or
      volume_shape: (D, H, W): every slice is projected alike, [D, H, W] -> [D, views, bins].
      angles: [views] in radians, in any order, repeated or beyond a turn if need be.
      source_distance: d, from the line through the rotation axis parallel to the detector; beyond the image's corners.
      detector_distance: e, from the same line; not negative. The pixels of a detector in the isocentre have e = 0.
      detector_count: bins per view.
      detector_spacing: distance of two bins, on the detector.
      pixel_size: width of a pixel, in the unit of all lengths; line integrals come out in it.
      detector_offset: position of the detector's centre along (cos t, sin t), seen from the foot of the perpendicular
        from the source.
      rotation_offset: position of the rotation axis, and with it of the image's centre, along (cos t, sin t), seen
        from that perpendicular. On the detector it is seen at rotation_offset (d + e) / d.
      pixel_aspect: height of a pixel over its width.

    Raises:
      ValueError: both shapes or none, a size that is not positive, a source within the image's corners, or angles
        that are not a non-empty list of finite numbers.
    """
    lengths = {"detector_spacing": detector_spacing, "pixel_size": pixel_size, "source_distance": source_distance}
    lengths["pixel_aspect"] = pixel_aspect
    offsets = {"detector_offset": detector_offset, "rotation_offset": rotation_offset}
    offsets |= {"detector_distance": detector_distance}
    plane, depth = shape_of_slices("FanBeam", image_shape, volume_shape)
    scan = checked_scan("FanBeam", plane, angles, detector_count, lengths, offsets)
    warn_of_degrees("FanBeam", angles)
    if detector_distance < 0:
        raise ValueError(f"FanBeam: detector_distance must not be negative, got {detector_distance}")
    height = pixel_size * pixel_aspect
    corner = math.hypot(plane[0] * height, plane[1] * pixel_size) / 2 + max(height, pixel_size)
    if source_distance <= corner:
        raise ValueError(
            f"FanBeam: source_distance {source_distance} must be more than {corner:g}, the half diagonal of the image "
            "and a pixel: the source may not turn through the image"
        )
    return _of_slices(ray_transform(FanGeometry(**scan)), depth)


def _of_slices(plane: RayTransform, depth: int | None) -> RayTransform | SliceTransform:
    return plane if depth is None else SliceTransform(plane, depth)


@kept
def ray_transform(geometry: Geometry) -> RayTransform:
    """The operator of a geometry, which nobody checks."""
    rays = jax.tree.map(leaf, geometry.rays())
    if isinstance(rays, FanRays):  # hundreds of views, and a slower transpose: fewer products count
        # A has no negative entry, so the singular vector that is looked for has none, and overlaps with ones.
        norm = lanczos_norm(rays.project, rays.backproject, rays.image_shape)
    else:
        norm = operator_norm(rays.project, rays.backproject, image_shape=rays.image_shape)
    return RayTransform(rays, geometry.words(), norm, type(geometry))
