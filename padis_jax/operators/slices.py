"""A scan of many slices: every slice of a volume is projected by one and the same operator.

(A x)_k = A_plane x_k        (A' y)_k = A_plane' y_k        ||A|| = ||A_plane||
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from padis_jax.operators.algebra import FLOAT, Composable
from padis_jax.operators.per_channel import at_least_single, check_shape, whole


@functools.partial(jax.tree_util.register_dataclass, data_fields=["plane"], meta_fields=["depth"])
@dataclasses.dataclass(frozen=True, eq=False)
class SliceTransform(Composable):
    """Line integrals of all slices, built by `ParallelBeam` and `FanBeam` with `volume_shape`.

    Volumes have no channels. Files hold [views, rows, bins]; the first two axes change places.

    Attributes:
      plane: the operator of a slice.
      depth: how many slices there are.
    """

    channelwise = False
    volumes = True
    iterative = True  # pinv is by CG
    dtype = FLOAT

    plane: Any  # a RayTransform, whose module imports this one
    depth: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        return self.depth, *self.plane.image_shape

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(D, views, bins)."""
        return self.depth, *self.plane.measurement_shape

    @property
    def norm(self) -> Array:
        """That of a slice."""
        return self.plane.norm

    @property
    def geometry(self) -> Any:
        """The scan of a slice, but not within a trace that has this operator as an argument."""
        return self.plane.geometry

    def __call__(self, volume: Array) -> Array:
        """Line integrals: [D, H, W] -> [D, views, bins]."""
        volume = self._checked("volume", volume, self.image_shape)
        # Measured on the CPU: slices one by one take half of the time that they take side by side.
        return lax.platform_dependent(
            volume, cpu=lambda volume: lax.map(self.plane, volume), default=jax.vmap(self.plane)
        )

    def T(self, measurement: Array) -> Array:
        """The exact transpose: [D, views, bins] -> [D, H, W]."""
        return jax.vmap(self.plane.T)(self._checked("measurement", measurement, self.measurement_shape))

    def start(self, measurement: Array) -> Array:
        """Filtered backprojection of every slice, with the Hann filter cut off at 0.9 of the Nyquist frequency."""
        return lax.map(self.plane.start, self._checked("measurement", measurement, self.measurement_shape))

    def pinv(self, measurement: Array) -> Array:
        """The Moore-Penrose solution A+ y, by conjugate gradients in every slice on its own."""
        return lax.map(self.plane.pinv, self._checked("measurement", measurement, self.measurement_shape))

    @staticmethod
    def _checked(what: str, array: Array, shape: tuple[int, ...]) -> Array:
        array = jnp.asarray(array)
        if array.shape == shape[1:]:
            raise ValueError(
                f"operator: expected {what} of shape {shape}, got one slice {shape[1:]}: build the operator with "
                "image_shape for slices"
            )
        check_shape(what, array, shape)
        return array.astype(at_least_single(array.dtype))


def of_slices(plane: Any, depth: int) -> SliceTransform:
    """The operator on volumes of `depth` slices, given that of a slice."""
    return SliceTransform(plane, depth)


def shape_of_slices(
    name: str, image_shape: tuple[int, int] | None, volume_shape: tuple[int, int, int] | None
) -> tuple[tuple[int, int], int | None]:
    """(H, W), and D where it is a volume; ValueError unless exactly one of both shapes is given."""
    if (image_shape is None) == (volume_shape is None):
        both = "not both" if image_shape is not None else "neither is given"
        raise ValueError(f"{name}: give image_shape (H, W) for slices or volume_shape (D, H, W) for volumes, {both}")
    if volume_shape is None:
        assert image_shape is not None
        if np.ndim(image_shape) == 1 and len(image_shape) == 3:
            raise ValueError(
                f"{name}: image_shape must be (H, W), got {tuple(image_shape)}: a volume's is volume_shape"
            )
        return image_shape, None
    if np.ndim(volume_shape) != 1 or len(volume_shape) != 3 or not all(whole(n) for n in volume_shape):
        raise ValueError(f"{name}: volume_shape must be (D, H, W), whole and positive, got {volume_shape}")
    depth, *plane = map(int, volume_shape)
    return (plane[0], plane[1]), depth
