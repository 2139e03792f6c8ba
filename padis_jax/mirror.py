"""Mirrored patches: a network that was trained on images and their mirror images has one density for both.

Where training mirrors images left to right with probability 1/2 (`batches.PatchConfig.flips`), the density that it
learns does not change when an image is mirrored, but the network is not quite as symmetric. A call may therefore
denoise the mirrored image as well as the image:

    D_mirrored(x) = M D(M x),    M mirrors left to right

Drawing one of the two in each call, with the tiling and at the same cost, is an unbiased estimate of their mean, as one
random tiling is of the mean over tilings. A transform that is drawn in each iteration of plug-and-play is in Terris et
al. (CVPR 2024, arXiv 2312.01831).

Mirrored are the patches, in their places, and what the network is told of them: x becomes -x. The plane is not copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# (patches [b, P, P, C], positions [b, P, P, 2 or 3], sigma [b]) -> patches
PatchDenoise = Callable[[Array, Array, Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mirrored:
    """(patches [b, P, P, C], positions [b, P, P, 2 or 3], sigma [b]) -> patches. A pytree.

    Attributes:
      denoise: the same without mirroring.
      coin: [], whether to mirror.
    """

    denoise: PatchDenoise
    coin: Array

    def __call__(self, patches: Array, positions: Array, sigma: Array) -> Array:
        """Denoised patches, in the orientation of the image."""
        sign = jnp.where(self.coin, -1, 1).astype(positions.dtype)
        told = self._turned(positions).at[..., 0].multiply(sign)
        return self._turned(self.denoise(self._turned(patches), told, sigma))

    def _turned(self, patches: Array) -> Array:
        return jnp.where(self.coin, patches[:, :, ::-1], patches)


def drawn(denoise: PatchDenoise, key: Array, mirror: bool) -> tuple[PatchDenoise, Array]:
    """The denoiser of patches of a call, mirrored with probability 1/2 if `mirror`; and the key that is left for it."""
    if not mirror:
        return denoise, key
    left, own = jax.random.split(key)
    return Mirrored(denoise, jax.random.bernoulli(own)), left
