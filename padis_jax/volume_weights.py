"""Priors of volumes from a weights file, of slabs or of images (weights.py, volume_prior.py)."""

from __future__ import annotations

from pathlib import Path

from jax.sharding import Mesh

from padis_jax.errors import UserError
from padis_jax.patches import Frame
from padis_jax.volume_prior import VolumePrior, slab_prior
from padis_jax.weights import Weights, load_weights


def load_volume_prior(
    path: str | Path,
    *,
    depth: int,
    first: int | None = None,
    skip: int = 1,
    patch_batch: int | None = None,
    mirror: bool | None = None,
) -> VolumePrior:
    """The prior of volumes of a weights file, of slabs or of images, which then denoise every slice by itself.

    >>> import padis_jax as pj
    >>> prior = pj.load_volume_prior("weights/head_ct.safetensors", depth=7)
    >>> prior.frame.image_shape, prior.frame.slab
    ((7, 256, 256), 1)

    Args:
      path: the weights file, or the name of one that comes with the program.
      depth: slices of the volume.
      first: number of its slice 0 in the volume that was trained on, or in one that is cut alike, for a network that
        knows z; None for a whole volume of as many slices.
      skip: distance of the slices of slabs on every other noise level, one that the weights were trained on
        (`patches.skips`); 1 for neighbours on all levels.
      patch_batch: patches at a time; None for those of one slab.
      mirror: see `patch_prior`; None if the weights were trained on mirrored images, too.

    Raises:
      UserError: see `load_weights`; for images of several channels, for a volume that the network's z does not fit, and
        for a `skip` that it was not trained on.
    """
    weights = load_weights(path, volumes=True)
    return volume_prior_of(weights, path, depth=depth, first=first, skip=skip, patch_batch=patch_batch, mirror=mirror)


def volume_prior_of(
    weights: Weights,
    path: str | Path,
    *,
    depth: int,
    first: int | None = None,
    skip: int = 1,
    frame: Frame | None = None,
    patch_batch: int | None = None,
    mesh: Mesh | None = None,
    mirror: bool | None = None,
) -> VolumePrior:
    """`load_volume_prior` of weights that are loaded already.

    Args:
      weights: of slabs or of grey images.
      path: of their file, for messages.
      depth: slices of the volume.
      first: see `load_volume_prior`.
      skip: likewise.
      frame: of a slice; None for that of the weights.
      patch_batch: patches at a time; None for those of one slab.
      mesh: devices that share the patches; None for one device.
      mirror: see `load_volume_prior`.

    Raises:
      UserError: as `load_volume_prior`.
    """
    slab, total = weights.slab, 0
    if slab is None and weights.network.image_channels != 1:
        raise UserError(
            f"{path}: of images of {weights.network.image_channels} channels, and volumes have none; take weights of "
            "grey images"
        )
    if skip != 1 and skip not in (slab.skips if slab else ()):
        apart = " and ".join(map(str, slab.skips)) if slab else ""
        trained = f"trained on slabs of slices {apart} apart" if slab else "of images"
        raise UserError(
            f"{path}: {trained}: leave `skip` (--volume.skip) out, or take weights of slabs that are trained with "
            f"patches.skips 1 {skip}"
        )
    if first is not None and weights.network.position_channels != 3:
        raise UserError(f"{path}: its network knows no z: leave `first` (--volume.first) out")
    if weights.network.position_channels == 3 and slab is not None and slab.total:
        total = slab.total
        if (first is None and depth != total) or (first or 0) + depth > total:
            raise UserError(
                f"{path}: trained on volumes of {total} slices, whose z the network knows: give `first` "
                f"(--volume.first), the number of the first of these {depth} slices in such a volume, at most "
                f"{max(total - depth, 0)}"
            )
    return slab_prior(
        weights.network,
        weights.params,
        frame or weights.frame,
        depth=depth,
        first=first or 0,
        total=total,
        skip=skip,
        patch_batch=patch_batch,
        mesh=mesh,
        mirror=weights.mirrored if mirror is None else mirror,
    )
