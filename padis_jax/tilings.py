"""A denoiser of planes made of tilings: D = untile(patch denoiser(tile(x), positions)), the mean over K tilings.

On several devices each denoises its own patches, `patch_batch` at a time. A call then gathers the patches once. A step
that needs the gradient as well depends on all of D twice, by the residual y - A D and by the next state. A is
linear, so A D is the sum of what the devices' own patches give: `SharedTilings.descend` exchanges one sum of the size
of the measurement, and gathers one combination of patches and gradients, not D and after it the gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from padis_jax.devices.mesh import AXIS
from padis_jax.patches import Frame, random_offset, tile, untile
from padis_jax.positions import plane_positions

PatchDenoise = Callable[
    [Array, Array, Array], Array
]  # (patches [b, P, P, C], positions [b, P, P, 2], sigma [b]) -> patches


# A D -> what a step makes of it, (weight, covector, scale, info): it wants weight D + scale J_D* covector.
Respond = Callable[[Array], tuple[Array, Array, Array, Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tilings:
    """(key, plane, sigma) -> plane. A pytree, whose static fields are compared by value so that equal ones share code.

    Attributes:
      denoise: of patches.
      frame: the geometry.
      random: whether the offsets are drawn from the key; else the middle one is taken.
      tilings: K.
      patch_batch: patches at a time, None for all.
    """

    denoise: PatchDenoise
    frame: Frame = dataclasses.field(metadata={"static": True})
    random: bool = dataclasses.field(metadata={"static": True})
    tilings: int = dataclasses.field(metadata={"static": True})
    patch_batch: int | None = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Array, plane: Array, sigma: Array) -> Array:
        """The expected clean plane."""
        offsets = self._offsets(key)
        clean = self._some(self.denoise, sigma, self._cut(plane, offsets), self._positions(offsets))
        return self._join(clean, offsets)

    def _some(self, denoise: PatchDenoise, sigma: Array, patches: Array, where: Array) -> Array:
        return in_chunks(
            lambda x, p: denoise(x, p, jnp.broadcast_to(sigma, x.shape[:1])), self.patch_batch, patches, where
        )

    def _cut(self, plane: Array, offsets: list[Array]) -> Array:
        return jnp.concatenate([tile(self.frame, plane, offset) for offset in offsets])

    def _positions(self, offsets: list[Array]) -> Array:
        """Cut with the very offsets of the patches."""
        return self._cut(jnp.asarray(plane_positions(self.frame.padded_shape)), offsets)

    def _join(self, patches: Array, offsets: list[Array]) -> Array:
        parts = patches.reshape(self.tilings, self.frame.patch_count, *patches.shape[1:])
        planes = [untile(self.frame, part, offset) for part, offset in zip(parts, offsets, strict=True)]
        return sum(planes[1:], planes[0]) / self.tilings

    def _offsets(self, key: Array) -> list[Array]:
        my, mx = self.frame.margin
        if not self.random:
            return [jnp.asarray((my // 2, mx // 2))]
        if self.tilings == 1:
            return [random_offset(key, self.frame)]
        chosen = jax.random.choice(key, my * mx, (self.tilings,), replace=False)
        return [jnp.stack(jnp.divmod(index, mx)) for index in chosen]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedTilings(Tilings):
    """The same with the patches of a call split over the devices of a mesh; the plane is whole on each."""

    mesh: Mesh = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Array, plane: Array, sigma: Array) -> Array:
        """The expected clean plane; its patches are gathered once."""
        offsets = self._offsets(key)

        def each(denoise: PatchDenoise, sigma: Array, patches: Array, where: Array) -> Array:
            return self._some(denoise, sigma, patches, where)

        return self._join(self._split(each, P(AXIS), sigma, plane, offsets), offsets)

    def descend(
        self, key: Array, plane: Array, sigma: Array, project: Callable[[Array], Array], respond: Respond
    ) -> tuple[Array, Any]:
        """weight D + scale J_D* covector of D = self(key, plane, sigma), with one sum and one gather.

        Args:
          key: of the call.
          plane: [Hp, Wp, C].
          sigma: [].
          project: linear, from planes.
          respond: project(D) -> (weight [Hp, Wp, C], covector [Hp, Wp, C], scale [], info).

        Returns:
          The plane, and the info.
        """
        offsets = self._offsets(key)

        def each(denoise: PatchDenoise, sigma: Array, patches: Array, where: Array) -> tuple[Array, Any]:
            def own(array: Array) -> Array:
                filled = self._filled(array)
                return lax.dynamic_slice_in_dim(filled, lax.axis_index(AXIS) * len(patches), len(patches))

            clean, transpose = jax.vjp(lambda x: self._some(denoise, sigma, x, where), patches)
            count = self.tilings * self.frame.patch_count
            among = jnp.zeros((len(patches) * self.mesh.size, *clean.shape[1:]), clean.dtype)
            among = lax.dynamic_update_slice_in_dim(among, clean, lax.axis_index(AXIS) * len(patches), 0)
            weight, covector, scale, info = respond(lax.psum(project(self._join(among[:count], offsets)), AXIS))
            (pulled,) = transpose(own(self._cut(covector, offsets)))
            return own(self._cut(weight, offsets)) * clean + scale * pulled, info

        mixed, info = self._split(each, (P(AXIS), P()), sigma, plane, offsets)
        return self._join(mixed, offsets), info

    def _filled(self, array: Array) -> Array:
        return jnp.pad(array, ((0, -array.shape[0] % self.mesh.size), *((0, 0),) * (array.ndim - 1)))

    def _split(self, each: Callable[..., Any], out: Any, sigma: Array, plane: Array, offsets: list[Array]) -> Any:
        """each(denoise, sigma, patches, positions) on every device; leading axes that were split are whole again."""
        # Held whole on either side of the split part, or the partitioner may choose several exchanges for one.
        whole = NamedSharding(self.mesh, P())
        arrays = [self._cut(plane, offsets), self._positions(offsets)]
        arrays = [self._filled(lax.with_sharding_constraint(a, whole)) for a in arrays]
        specs = (P(), P(), P(AXIS), P(AXIS))
        found = jax.shard_map(each, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(
            self.denoise, sigma, *arrays
        )
        patches, *rest = found if isinstance(found, tuple) else (found,)
        patches = lax.with_sharding_constraint(patches, whole)[: self.tilings * self.frame.patch_count]
        return (patches, *rest) if rest else patches


def in_chunks(f: Callable[[Array, Array], Array], size: int | None, *arrays: Array) -> Any:
    """f over the leading axis, at most `size` at a time, keeping nothing but the inputs for the gradient."""
    count = arrays[0].shape[0]
    if size is None or size >= count:
        return f(*arrays)
    chunks = -(-count // size)
    each = -(-count // chunks)  # chunks of equal size pad less than full ones and a remainder
    padded = (jnp.pad(a, ((0, chunks * each - count), *((0, 0),) * (a.ndim - 1))) for a in arrays)
    split = tuple(a.reshape(chunks, each, *a.shape[1:]) for a in padded)
    out = lax.map(jax.checkpoint(lambda chunk: f(*chunk)), split)
    return out.reshape(chunks * each, *out.shape[2:])[:count]
