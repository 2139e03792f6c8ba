"""What the geometries of all scans state: image, angles, detector, and where the axis is."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """Numbers of a scan: lengths in one unit, angles in radians. `rays` tabulates what the projector computes with.

    The tables are arrays, whose shapes depend on those of image and sinogram and little else, so that programs are
    compiled for a shape and not for a geometry. Made in float64 by NumPy, they are rounded to what JAX is set to.
    `project` makes them at every call; `RayTransform` keeps them.
    """

    image_shape: tuple[int, int]
    angles: tuple[float, ...]
    detector_count: int
    detector_spacing: float
    pixel_size: float
    detector_offset: float
    rotation_offset: float = 0.0
    pixel_aspect: float = 1.0

    rays: ClassVar[Any]  # (transpose=True) -> a pytree with project, backproject and smear

    @property
    def pixel_height(self) -> float:
        """Distance of two rows, `pixel_size` being that of two columns."""
        return self.pixel_size * self.pixel_aspect

    @property
    def measurement_shape(self) -> tuple[int, int]:
        """(views, bins)."""
        return len(self.angles), self.detector_count

    def project(self, image: Array) -> Array:
        """[H, W] -> [views, bins]."""
        return self.rays(transpose=False).project(image)

    def words(self) -> np.ndarray:
        """All real numbers, float64 bit for bit as integers, which JAX does not round."""
        numbers = [*self.angles, *(getattr(self, name) for name in self._lengths())]
        return np.asarray(numbers, np.float64).view(np.uint32)

    @classmethod
    def from_words(cls, image_shape: tuple[int, int], detector_count: int, words: np.ndarray | Array) -> Self:
        """The scan with these `words`, which must not be traced."""
        numbers, names = np.array(words).view(np.float64).tolist(), cls._lengths()
        lengths = dict(zip(names, numbers[-len(names) :], strict=True))
        angles = tuple(numbers[: -len(names)])
        return cls(image_shape=image_shape, angles=angles, detector_count=detector_count, **lengths)

    @classmethod
    def _lengths(cls) -> list[str]:
        return [f.name for f in dataclasses.fields(cls) if f.name not in ("image_shape", "angles", "detector_count")]
