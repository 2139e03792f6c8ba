"""Total variation of volumes: tv.py with differences along z as well.

    TV(x) = sum over voxels of sqrt(dx^2 + dy^2 + (depth dz)^2)

`depth` is the weight of a difference between neighbouring slices: 1 for voxels of equal sides, the side of a pixel over
the distance of slices for gradients in millimetres, 0 for every slice by itself.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from padis_jax.solvers.checks import check_settings
from padis_jax.solvers.tv import TV


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VolumeTV(TV):
    """Settings of `total_variation` for operators on volumes [D, H, W].

    >>> from padis_jax.solvers.volume_tv import VolumeTV
    >>> VolumeTV(weight=0.003, depth=0.5).iterations  # total_variation(y, A, settings=...)
    500

    Attributes:
      depth: weight of differences along z; the others are those of `TV`.

    Raises:
      ValueError: as `TV`, and for depth outside of [0, inf].
    """

    depth: float | Array = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, depth="[0, inf]")

    @property
    def volumes(self) -> bool:
        """Whether it is of volumes [D, H, W]."""
        return True

    @property
    def bound(self) -> float | Array:
        """8 + 4 depth^2, which bounds ||grad||^2."""
        return 8 + 4 * jnp.square(self.depth)

    def gradient(self, x: Array) -> Array:
        """Forward differences along z, y and x: [D, H, W] -> [3, D, H, W], 0 at the far ends."""
        steps = [jnp.diff(x, axis=axis, append=jnp.take(x, jnp.array([-1]), axis=axis)) for axis in range(3)]
        return jnp.stack([self.depth * steps[0], steps[1], steps[2]])

    def gradient_adjoint(self, q: Array) -> Array:
        """[3, D, H, W] -> [D, H, W]: the transpose of `gradient`."""
        total = jnp.zeros_like(q[0])
        for axis, part in enumerate((self.depth * q[0], q[1], q[2])):
            inner = jnp.moveaxis(part, axis, 0)[:-1]
            zero = jnp.zeros_like(jnp.moveaxis(part, axis, 0)[:1])
            flow = jnp.concatenate([zero, inner]) - jnp.concatenate([inner, zero])
            total = total + jnp.moveaxis(flow, 0, axis)
        return total


def for_volumes(settings: TV) -> VolumeTV:
    """The settings of volumes with an image's numbers."""
    if isinstance(settings, VolumeTV):
        return settings
    return VolumeTV(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)})
