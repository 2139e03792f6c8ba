"""A denoiser of planes made of one of patches: D = untile(patch denoiser(tile(x), positions)), the mean over K tilings.

On several devices each denoises its own patches, `patch_batch` at a time. A call then gathers the patches once. A step
that needs the gradient as well depends on all of D twice, by the residual y - A D and by the next state. A is
linear, so A D is the sum of what the devices' own patches give: `SharedTilings.descend` exchanges one sum of the size
of the measurement, and gathers one combination of patches and gradients, not D and after it the gradient.

Fixed overlapping patches (`Overlap`), which PaDIS (arXiv 2406.02462) compares with, start every P - overlap pixels from
the edge of the image; the last one ends at the other edge, so its overlap may be larger. The padding is not covered.

    average   a pixel is the mean over the patches that hold it
    stitch    patches are written row by row, so a pixel is that of the last patch that holds it

On 256 x 256 pixels there are 6 x 6 patches of 56 pixels that share 8, where a random tiling has 5 x 5: 1.4 times the
network's work, which tables count as one evaluation all the same. Patches of 64 are 5 x 5 in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from padis_jax.devices.mesh import AXIS
from padis_jax.mirror import PatchDenoise, drawn
from padis_jax.patches import Frame, random_offset, tile, untile
from padis_jax.positions import plane_positions

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
      mirror: whether a call mirrors its patches with probability 1/2 (mirror.py).
    """

    denoise: PatchDenoise
    frame: Frame = dataclasses.field(metadata={"static": True})
    random: bool = dataclasses.field(metadata={"static": True})
    tilings: int = dataclasses.field(metadata={"static": True})
    patch_batch: int | None = dataclasses.field(metadata={"static": True})
    mirror: bool = dataclasses.field(default=False, kw_only=True, metadata={"static": True})

    def __call__(self, key: Array, plane: Array, sigma: Array) -> Array:
        """The expected clean plane."""
        denoise, key = drawn(self.denoise, key, self.mirror)
        offsets = self._offsets(key)
        clean = self._some(denoise, sigma, self._cut(plane, offsets), self._positions(offsets))
        return self._join(clean, offsets)

    def _some(self, denoise: PatchDenoise, sigma: Array, patches: Array, where: Array) -> Array:
        return in_chunks(denoise, self.patch_batch, sigma, patches, where)

    def _cut(self, plane: Array, offsets: list[Array]) -> Array:
        return jnp.concatenate([tile(self.frame, plane, offset) for offset in offsets])

    def _positions(self, offsets: list[Array]) -> Array:
        """Cut with the very offsets of the patches."""
        return self._cut(jnp.asarray(plane_positions(self.frame.padded_shape)), offsets)

    def _join(self, patches: Array, offsets: list[Array]) -> Array:
        parts = rearrange(patches, "(k n) h w c -> k n h w c", k=self.tilings)
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
        denoise, key = drawn(self.denoise, key, self.mirror)
        offsets = self._offsets(key)
        return self._join(self._split(self._some, P(AXIS), denoise, sigma, plane, offsets), offsets)

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
        turned, key = drawn(self.denoise, key, self.mirror)
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

        mixed, info = self._split(each, (P(AXIS), P()), turned, sigma, plane, offsets)
        return self._join(mixed, offsets), info

    def _filled(self, array: Array) -> Array:
        return jnp.pad(array, ((0, -array.shape[0] % self.mesh.size), *((0, 0),) * (array.ndim - 1)))

    def _split(
        self,
        each: Callable[..., Any],
        out: Any,
        denoise: PatchDenoise,
        sigma: Array,
        plane: Array,
        offsets: list[Array],
    ) -> Any:
        """each(denoise, sigma, patches, positions) on every device; leading axes that were split are whole again."""
        # Held whole on either side of the split part, or the partitioner may choose several exchanges for one.
        whole = NamedSharding(self.mesh, P())
        arrays = [self._cut(plane, offsets), self._positions(offsets)]
        arrays = [self._filled(lax.with_sharding_constraint(a, whole)) for a in arrays]
        specs = (P(), P(), P(AXIS), P(AXIS))
        found = jax.shard_map(each, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(
            denoise, sigma, *arrays
        )
        patches, *rest = found if isinstance(found, tuple) else (found,)
        patches = lax.with_sharding_constraint(patches, whole)[: self.tilings * self.frame.patch_count]
        return (patches, *rest) if rest else patches


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Frozen geometry of fixed overlapping patches.

    Both `cut` and `put` work along the axes one after the other, with index arrays that are known before tracing.

    Attributes:
      frame: image, patch and padding.
      overlap: pixels that neighbours share, 0 to P - 1.
      join: "average" or "stitch".
    """

    frame: Frame
    overlap: int = 8
    join: Literal["average", "stitch"] = "average"

    def __post_init__(self) -> None:
        if self.join not in ("average", "stitch"):
            raise ValueError(f"join is {self.join!r}: use 'average' or 'stitch'")
        if self.frame.patch == 0 or self.frame.patch > min(self.frame.image_shape):
            raise ValueError(
                f"overlapping patches need a patch no larger than the image, not {self.frame.patch} pixels (0: the "
                f"whole image) on {self.frame.image_shape}"
            )
        if not 0 <= self.overlap < self.frame.patch:
            raise ValueError(f"overlap is {self.overlap}: use 0 to {self.frame.patch - 1}, less than the patch")

    @property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """First rows and first columns of the patches on the padded plane."""
        p, step = self.frame.patch, self.frame.patch - self.overlap
        rows, columns = (
            margin + np.minimum(np.arange(0, n - p + step, step), n - p)
            for n, margin in zip(self.frame.image_shape, self.frame.margin, strict=True)
        )
        return rows, columns

    @property
    def patch_count(self) -> int:
        """Number of patches."""
        rows, columns = self.starts
        return len(rows) * len(columns)

    def cut(self, plane: Array) -> Array:
        """[Hp, Wp, C] -> [patches, P, P, C], row by row."""
        self.frame.check_plane(plane)
        p, (rows, columns) = self.frame.patch, self.starts
        picked = jnp.take(jnp.take(plane, _indices(rows, p), axis=0), _indices(columns, p), axis=1)
        return rearrange(picked, "(ny ph) (nx pw) c -> (ny nx) ph pw c", ph=p, pw=p)

    def put(self, patches: Array) -> Array:
        """[patches, P, P, C] -> [Hp, Wp, C], joined; 0 outside of the image."""
        p, (rows, columns) = self.frame.patch, self.starts
        if patches.shape[:-1] != (self.patch_count, p, p):
            raise ValueError(f"overlap: expected patches {(self.patch_count, p, p, 'C')}, got {patches.shape}")
        plane = rearrange(patches, "(ny nx) ph pw c -> (ny ph) (nx pw) c", ny=len(rows))
        for axis, (starts, n, margin) in enumerate(
            zip((rows, columns), self.frame.image_shape, self.frame.margin, strict=True)
        ):
            where = _indices(starts, p) - margin  # pixel of the image for each row (column) of all patches
            if self.join == "average":
                share = (1 / np.bincount(where, minlength=n)[where]).astype(np.float32)
                weighted = plane * jnp.expand_dims(share, (1 - axis, 2))
                shape = (n, plane.shape[1], plane.shape[2]) if axis == 0 else (plane.shape[0], n, plane.shape[2])
                at = (where,) if axis == 0 else (slice(None), where)
                plane = jnp.zeros(shape, plane.dtype).at[at].add(weighted)
            else:
                last = np.zeros(n, int)
                last[where] = np.arange(len(where))  # where indices repeat, the last one counts
                plane = jnp.take(plane, last, axis=axis)
        return self.frame.pad(plane)


def _indices(starts: np.ndarray, patch: int) -> np.ndarray:
    return (starts[:, None] + np.arange(patch)).ravel()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Overlapping:
    """(key, plane, sigma) -> plane by overlapping patches, `patch_batch` at a time; the key is not used."""

    denoise: PatchDenoise
    overlap: Overlap = dataclasses.field(metadata={"static": True})
    patch_batch: int | None = dataclasses.field(metadata={"static": True})

    def __call__(self, key: Array, plane: Array, sigma: Array) -> Array:
        """The expected clean plane."""
        positions = jnp.asarray(plane_positions(self.overlap.frame.padded_shape))
        patches, where = self.overlap.cut(plane), self.overlap.cut(positions)
        return self.overlap.put(in_chunks(self.denoise, self.patch_batch, sigma, patches, where))


def in_chunks(denoise: PatchDenoise, size: int | None, sigma: Array, *arrays: Array) -> Array:
    """All patches denoised at one sigma, at most `size` at a time, keeping nothing but the inputs for the gradient."""

    def some(patches: Array, positions: Array) -> Array:
        return denoise(patches, positions, jnp.broadcast_to(sigma, patches.shape[:1]))

    count = arrays[0].shape[0]
    if size is None or size >= count:
        return some(*arrays)
    chunks = -(-count // size)
    fill = -count % chunks  # chunks of equal size pad less than full ones and a remainder
    padded = (jnp.pad(a, ((0, fill), *((0, 0),) * (a.ndim - 1))) for a in arrays)
    split = tuple(rearrange(a, "(chunk n) h w c -> chunk n h w c", chunk=chunks) for a in padded)
    out = lax.map(jax.checkpoint(lambda chunk: some(*chunk)), split)
    return rearrange(out, "chunk n h w c -> (chunk n) h w c")[:count]
