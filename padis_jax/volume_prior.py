"""From a denoiser of patches to one of volumes: D = untile(patch denoiser(tile(x), positions)), 0 beyond the ends.

One tiling a call for the whole volume (slabs.py). Patches are cut where they are denoised, a few at a time, so that the
network's memory, and that of its gradient, does not grow with the volume; beside the volume and its answer a call holds
the denoised patches. A network of images (d = 1) denoises every slice with the offset of the call. Where the frame has
slabs of slices that are apart (`skip`), a call says which of the two tilings it wants.

On several devices each has the whole volume and cuts and denoises its own patches, as many at a time as one device
would; a call gathers the denoised patches once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from padis_jax.devices.mesh import AXIS
from padis_jax.fields import check_count
from padis_jax.mirror import PatchDenoise, drawn
from padis_jax.patches import Frame
from padis_jax.positions import plane_positions
from padis_jax.prior import NetworkDenoise
from padis_jax.slabs import VolumeFrame, corners, random_offsets, slab_heights, tile_volume, untile_volume
from padis_jax.unet import NetworkConfig, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VolumePrior:
    """A denoiser of whole volumes and the frame it works on. A pytree.

    Attributes:
      denoise: (key, noisy volume [Dp, Hp, Wp], sigma []) -> the expected clean volume. A function, or a pytree that can
        be called. Where the frame's `skip` is above 1 it has a fourth argument, a boolean []: whether the slices of
        slabs are that far apart in this call.
      frame: pads and crops.
      channels: 1; volumes have no channel axis.
      tilings: of each call, that is its cost in network evaluations of the volume.
    """

    denoise: Any
    frame: VolumeFrame = dataclasses.field(metadata={"static": True})
    channels: int = dataclasses.field(default=1, metadata={"static": True})
    tilings: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if callable(self.denoise) and jax.tree_util.all_leaves([self.denoise]):
            object.__setattr__(self, "denoise", Partial(self.denoise))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlabTilings:
    """(key, volume, sigma, apart) -> volume by one random tiling, by slabs of slices that are apart if `apart`.

    Attributes:
      denoise: of patches [b, P, P, d] with positions, [b, P, P, 3] where `seen` is 3, else [b, P, P, 2].
      frame: the geometry.
      patch_batch: patches at a time.
      seen: coordinates that the network is given, 2 or 3.
      mirror: whether a call mirrors its patches with probability 1/2 (mirror.py).
    """

    denoise: PatchDenoise
    frame: VolumeFrame = dataclasses.field(metadata={"static": True})
    patch_batch: int = dataclasses.field(metadata={"static": True})
    seen: int = dataclasses.field(metadata={"static": True})
    mirror: bool = dataclasses.field(default=False, kw_only=True, metadata={"static": True})

    def __call__(self, key: Array, volume: Array, sigma: Array, apart: Array | bool = False) -> Array:
        """The expected clean volume."""
        denoise, key = drawn(self.denoise, key, self.mirror)
        call = dataclasses.replace(self, denoise=denoise, mirror=False)
        if self.frame.skip == 1 or isinstance(apart, bool):
            return call._tiled(self.frame.skip if apart else 1, key, volume, sigma)
        tilings = [functools.partial(call._tiled, skip) for skip in (self.frame.skip, 1)]
        return lax.cond(apart, *tilings, key, volume, sigma)

    def _tiled(self, skip: int, key: Array, volume: Array, sigma: Array) -> Array:
        frame, offset = self.frame, random_offsets(key, self.frame, skip)
        count = math.prod(frame.tiles_of(skip))
        patches = self._patches(skip, offset, volume, sigma, jnp.arange(count, dtype=jnp.int32))
        return frame.without_ends(untile_volume(frame, patches, offset, skip))

    def _patches(self, skip: int, offset: Array, volume: Array, sigma: Array, numbers: Array) -> Array:
        """The denoised patches of these numbers, a few at a time."""

        def some(numbers: Array) -> Array:
            patches = tile_volume(self.frame, volume, offset, numbers, skip)
            where = slab_positions(self.frame, offset, numbers, self.seen, skip)
            return self.denoise(patches, where, jnp.broadcast_to(sigma, numbers.shape))

        count = len(numbers)
        if self.patch_batch >= count:
            return some(numbers)
        chunks = -(-count // self.patch_batch)  # of equal size, as those of images
        padded = jnp.pad(numbers, (0, -count % chunks))
        out = lax.map(jax.checkpoint(some), padded.reshape(chunks, -1))
        return rearrange(out, "chunk n h w d -> (chunk n) h w d")[:count]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedSlabTilings(SlabTilings):
    """The same with the patches of a call split over the devices of a mesh; the volume is whole on each."""

    mesh: Mesh = dataclasses.field(metadata={"static": True})

    def _patches(self, skip: int, offset: Array, volume: Array, sigma: Array, numbers: Array) -> Array:
        def own(tilings: SlabTilings, offset: Array, volume: Array, sigma: Array, numbers: Array) -> Array:
            return tilings._patches(skip, offset, volume, sigma, numbers)

        # Held whole on either side of the split part, as in tilings.py.
        whole, count = NamedSharding(self.mesh, P()), len(numbers)
        alone = SlabTilings(self.denoise, self.frame, self.patch_batch, self.seen)
        filled = jnp.pad(numbers, (0, -count % self.mesh.size))
        specs = (P(), P(), P(), P(), P(AXIS))
        split = jax.shard_map(own, mesh=self.mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
        volume = lax.with_sharding_constraint(volume, whole)
        return lax.with_sharding_constraint(split(alone, offset, volume, sigma, filled), whole)[:count]


def slab_positions(frame: VolumeFrame, offset: Array, numbers: Array, seen: int, skip: int = 1) -> Array:
    """Positions of slabs of the tiling at `offset`: (x, y) of their pixels, and z of their middle if `seen` is 3.

    Args:
      frame: the geometry.
      offset: integers [3].
      numbers: [b], as in `tile_volume`.
      seen: 2 or 3.
      skip: distance of the slices of a slab, 1 or the frame's.

    Returns:
      float32 [b, P, P, seen].
    """
    plane, at = jnp.asarray(plane_positions(frame.plane.padded_shape)), corners(frame, offset, numbers, skip)
    sides = (*frame.plane.tile_shape, 2)
    xy = jax.vmap(lambda corner: lax.dynamic_slice(plane, (corner[1], corner[2], jnp.int32(0)), sides))(at)
    if seen == 2:
        return xy
    heights = jnp.asarray(slab_heights(frame.slab, frame.whole, skip))
    number = at[:, 0] + (frame.first + frame.slab * skip - 1 - frame.margin[0])
    z = heights[jnp.minimum(number, heights.size - 1)]  # a slab may lie behind the volume as a whole
    return jnp.concatenate([xy, jnp.broadcast_to(z[:, None, None, None], (*xy.shape[:3], 1))], axis=-1)


def slab_prior(
    config: NetworkConfig,
    params: Params,
    frame: Frame,
    *,
    depth: int,
    first: int = 0,
    total: int = 0,
    skip: int = 1,
    patch_batch: int | None = None,
    mesh: Mesh | None = None,
    mirror: bool = False,
) -> VolumePrior:
    """The prior of volumes of a patch network, whose channels are the slices of a slab: one for a network of images.

    Args:
      config: the network's config.
      params: its parameters.
      frame: the frame of a slice that it was trained with.
      depth: slices of the volume.
      first: number of the volume's slice 0 in the volume that z refers to; used by networks that know z.
      total: slices of that volume; 0 for those up to the end of this one.
      skip: distance of the slices of a slab on every other noise level; 1 for neighbours on all.
      patch_batch: patches at a time, on each device; None for those of one slab, which is the memory of one image.
      mesh: devices that share the patches, with one axis `devices.mesh.AXIS`; None for one device.
      mirror: see `patch_prior`.

    Returns:
      A `VolumePrior` for volumes [depth, H, W].

    Raises:
      ValueError: if a setting is out of range, or the frame's patch does not suit the network.
    """
    for side in frame.tile_shape:
        config.check_patch(side)
    volume = VolumeFrame(frame, depth, config.image_channels, first, total, skip)
    if patch_batch is not None:
        check_count("patch_batch", patch_batch)
    size = frame.patch_count if patch_batch is None else patch_batch
    denoise = Partial(NetworkDenoise(config), params)
    seen = max(2, config.position_channels)
    if mesh is not None and mesh.size > 1:
        return VolumePrior(SharedSlabTilings(denoise, volume, size, seen, mesh, mirror=mirror), volume)
    return VolumePrior(SlabTilings(denoise, volume, size, seen, mirror=mirror), volume)
