"""Tomography with a cone beam: line integrals of a volume from a point source, as an operator with an exact transpose.

The rays are those of `cone_geometry`, their sums those of `cone_rays`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators.algebra import FLOAT, Composable
from padis_jax.operators.cone_geometry import ConeGeometry, circular, seen_from_edge
from padis_jax.operators.cone_rays import ConeRays
from padis_jax.operators.fdk import fdk
from padis_jax.operators.kept import kept
from padis_jax.operators.least_squares import conjugate_gradient, pseudo_inverse
from padis_jax.operators.norm import lanczos_norm
from padis_jax.operators.per_channel import at_least_single, check_shape, leaf, whole
from padis_jax.operators.scan_checks import FARTHEST, check_numbers, check_sizes, checked_angles, warn_of_degrees

BASIS = 4  # volumes that the search for the norm keeps
STEPS = 8  # of conjugate gradients, for a first volume of views that are no circular orbit


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rays", "words", "norm"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class ConeTransform(Composable):
    """Line integrals of a volume as an operator, built by `ConeBeam`.

    All numbers are leaves: scans of other angles, distances and offsets are arguments of the programs compiled for one.

    Attributes:
      rays: the tables that project, in the precision that JAX had when they were built.
      words: numbers of the geometry, of NumPy, which an operator that is built in a trace can read.
      norm: ||A||.
    """

    channelwise = False
    volumes = True
    iterative = True  # pinv is by CG
    dtype = FLOAT

    rays: ConeRays
    words: np.ndarray | Array
    norm: Array

    @property
    def geometry(self) -> ConeGeometry:
        """The scan, but not within a trace that has this operator as an argument."""
        return ConeGeometry.from_words(self.rays.volume_shape, self.rays.detector_shape, self.words)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.rays.volume_shape

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        return len(self.rays.whole), *self.rays.detector_shape

    def __call__(self, volume: Array) -> Array:
        """Line integrals, in the volume's unit times the unit of length: [D, H, W] -> [views, rows, columns]."""
        volume = _checked("volume", volume, self.image_shape)
        return real_parts(self.rays_for(volume).project, volume)

    def T(self, measurement: Array) -> Array:
        """The exact transpose: [views, rows, columns] -> [D, H, W]."""
        measurement = _checked("measurement", measurement, self.measurement_shape)
        return real_parts(self.rays_for(measurement).backproject, measurement)

    def rays_for(self, array: Array) -> ConeRays:
        """The tables in the array's precision, where the geometry is at hand: built in single, used in double."""
        single = self.rays.direction.dtype == np.float32
        if single and jnp.finfo(array.dtype).bits > 32 and not isinstance(self.words, jax.core.Tracer):
            return self.geometry.rays()
        return self.rays

    def start(self, measurement: Array) -> Array:
        """FDK with the Hann filter cut off at 0.9 of the Nyquist frequency (`fdk`).

        Where the views are no circular orbit, 8 steps of conjugate gradients from zero.
        """
        measurement = _checked("measurement", measurement, self.measurement_shape)
        if self.rays.fbp is not None:
            return fdk(self, measurement)

        def steps(measurement: Array) -> Array:
            rays = self.rays_for(measurement)
            rhs = rays.backproject(measurement)
            return conjugate_gradient(lambda x: rays.backproject(rays.project(x)), rhs, jnp.zeros_like(rhs), STEPS)

        return real_parts(steps, measurement)

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y by conjugate gradients, to 1e-6 in float32 or 2000 iterations."""
        measurement = _checked("measurement", measurement, self.measurement_shape)
        rays = self.rays_for(measurement)
        return real_parts(functools.partial(pseudo_inverse, rays.project, rays.backproject), measurement)


def _checked(what: str, array: Array, shape: tuple[int, ...]) -> Array:
    array = jnp.asarray(array)
    check_shape(what, array, shape)
    return array.astype(at_least_single(array.dtype))


def real_parts(function: Callable[[Array], Array], array: Array) -> Array:
    """A real linear map of a real array, or of the real and the imaginary part alike."""
    if jnp.iscomplexobj(array):
        return jax.lax.complex(function(array.real), function(array.imag))
    return function(array)


def ConeBeam(  # noqa: N802 (a factory named like the object it makes)
    *,
    volume_shape: tuple[int, int, int],
    detector_shape: tuple[int, int],
    slice_spacing: float | None = None,
    pixel_size: float = 1.0,
    angles: Sequence[float] | np.ndarray | Array | None = None,
    source_distance: float | None = None,
    detector_distance: float | None = None,
    detector_spacing: float | tuple[float, float] | None = None,
    detector_offset: tuple[float, float] = (0.0, 0.0),
    per_view: np.ndarray | Array | None = None,
) -> ConeTransform:
    """A cone-beam scan with a flat detector: a circular orbit, or views that are placed one by one.

    On the circular orbit the source of view t is at (d sin t, -d cos t, 0), the detector's centre at
    (-e sin t, e cos t, 0), columns ascend along (cos t, sin t, 0) and rows along z: the middle row is a `FanBeam`.
    Slice k of the volume is at z = (k - (D - 1)/2) slice_spacing; rows and columns lie as in two dimensions, row 0 at
    the top. Projections are [views, rows, columns].

    >>> import jax.numpy as jnp, numpy as np, padis_jax as pj
    >>> angles = np.arange(12) * np.pi / 6
    >>> A = pj.ConeBeam(volume_shape=(8, 16, 16), slice_spacing=1.0, angles=angles, detector_shape=(12, 32),
    ...                 source_distance=60, detector_distance=20)
    >>> y = A(jnp.ones((8, 16, 16)))
    >>> y.shape, A.T(y).shape, A.start(y).shape  # the last is FDK
    ((12, 12, 32), (8, 16, 16), (8, 16, 16))

    Args:
      volume_shape: (D, H, W) in voxels.
      detector_shape: (rows, columns).
      slice_spacing: distance of two slices.
      pixel_size: side of a voxel in its slice, in the unit of all lengths; line integrals come out in it.
      angles: [views] in radians, in any order.
      source_distance: d, from the rotation axis; beyond the volume's corners.
      detector_distance: e, from the rotation axis; not negative.
      detector_spacing: distance of two pixels of the detector, or (of rows, of columns); 1 if not given.
      detector_offset: (v, u) of the detector's centre, along its rows' order and its columns'.
      per_view: instead of the five above, [views, 12]: (x, y, z) of source, detector's centre, step from one column to
        the next, and step from one row to the next, as ASTRA's cone_vec.

    Raises:
      ValueError: a size that is not positive, a missing or superfluous number, angles that are not a non-empty list of
        finite numbers, a source that is not beyond the volume, or a detector that is no plane.
    """
    shape, detector = checked_shape("volume_shape", volume_shape, 3), checked_shape("detector_shape", detector_shape, 2)
    if slice_spacing is None:
        raise ValueError(
            "ConeBeam: slice_spacing is missing: the distance of two slices, in the unit of pixel_size (equal to it "
            "for cubic voxels)"
        )
    lengths, orbit = (
        {"pixel_size": pixel_size, "slice_spacing": slice_spacing},
        (angles, source_distance, detector_distance),
    )
    pitch = np.asarray(1.0 if detector_spacing is None else detector_spacing)
    if np.shape(detector_offset) != (2,) or pitch.shape not in ((), (2,)):
        raise ValueError("ConeBeam: detector_offset is (of rows, of columns), detector_spacing too, or one number")
    if per_view is None:
        if angles is None or source_distance is None or detector_distance is None:
            missing = ("angles", "source_distance", "detector_distance")[
                [number is None for number in orbit].index(True)
            ]
            raise ValueError(f"ConeBeam: {missing} is missing; or give every view's place by per_view")
        rows, columns = np.broadcast_to(pitch, 2).tolist()
        lengths |= {
            "detector_spacing": rows,
            "detector_spacing of columns": columns,
            "source_distance": source_distance,
        }
        v, u = detector_offset
        places = {"detector_distance": detector_distance, "detector_offset[0]": v, "detector_offset[1]": u}
        check_numbers("ConeBeam", lengths, places)
        check_sizes("ConeBeam", lengths | places, min(rows, columns))
        if detector_distance < 0:
            raise ValueError(f"ConeBeam: detector_distance must not be negative, got {detector_distance}")
        theta = checked_angles("ConeBeam", angles)
        warn_of_degrees("ConeBeam", theta)
        vectors = circular(
            theta,
            spacing=(rows, columns),
            source_distance=float(source_distance),
            detector_distance=float(detector_distance),
            offset=(float(v), float(u)),
        )
    else:
        names = ("angles", "source_distance", "detector_distance", "detector_spacing", "detector_offset")
        given = [number is not None for number in (*orbit, detector_spacing)] + [any(detector_offset)]
        if any(given):
            raise ValueError(f"ConeBeam: per_view says where all is, so leave out {names[given.index(True)]}")
        vectors, unit = _checked_views(per_view)
        check_numbers("ConeBeam", lengths, {})
        check_sizes("ConeBeam", lengths, unit, "a pixel of the detector")
    geometry = ConeGeometry(
        (shape[0], shape[1], shape[2]), (detector[0], detector[1]), vectors, float(pixel_size), float(slice_spacing)
    )
    outside = geometry.depths().min(1) <= 0
    if outside.any():
        view = int(np.argmax(outside))
        corner = math.hypot(*((n + 1) * pixel_size / 2 for n in shape[1:]))
        remedy = (
            f"source_distance {source_distance} must be more than {corner:g}, the half diagonal of a slice and a voxel"
            if per_view is None
            else "source and detector must be on opposite sides, the whole volume before the source"
        )
        raise ValueError(f"ConeBeam: in view {view} a part of the volume is behind the source: {remedy}")
    return cone_transform(geometry)


@kept
def cone_transform(geometry: ConeGeometry) -> ConeTransform:
    """The operator of a geometry, which nobody checks."""
    rays = jax.tree.map(leaf, geometry.rays())
    # A has no negative entry, so the singular vector that is looked for has none, and overlaps with ones.
    norm = lanczos_norm(rays.project, rays.backproject, rays.volume_shape, basis=BASIS)
    return ConeTransform(rays, geometry.words(), norm)


def checked_shape(name: str, shape: Sequence[int], axes: int) -> tuple[int, ...]:
    """Whole numbers; ValueError unless there are `axes` of them, all positive."""
    sides = shape if isinstance(shape, Sequence | np.ndarray) else ()
    if len(sides) != axes or not all(whole(n) for n in sides):
        wanted = {3: "(D, H, W)", 2: "(rows, columns)"}[axes]
        raise ValueError(f"{name} must be {wanted}, whole and positive, got {shape}")
    return tuple(int(n) for n in sides)


def _checked_views(per_view: np.ndarray | Array) -> tuple[tuple[float, ...], float]:
    """The vectors, and the shortest step of the detector."""
    found = np.asarray(per_view)
    if found.ndim != 2 or found.shape[1] != 12 or not len(found) or found.dtype.kind not in "iuf":
        raise ValueError(f"ConeBeam: per_view must be [views, 12] numbers, got {found.dtype}{found.shape}")
    found = found.astype(np.float64)
    bad = ~(np.abs(found) < FARTHEST).all(1)
    edge = seen_from_edge(found)
    for wrong, why in ((bad, "a number that is not finite or too large"), (edge, "a detector seen from its edge")):
        if wrong.any():
            raise ValueError(f"ConeBeam: view {int(np.argmax(wrong))} of per_view has {why}")
    return tuple(found.ravel().tolist()), float(np.linalg.norm(found.reshape(-1, 4, 3)[:, 2:], axis=2).min())
