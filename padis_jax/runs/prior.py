"""The prior of a run: the weights, tiled as the config asks for, on as many patches at a time as it allows."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from jax.sharding import Mesh

from padis_jax.devices.chunk import choose_patch_batch
from padis_jax.devices.mesh import make_mesh
from padis_jax.errors import UserError
from padis_jax.patches import Frame, frame_for
from padis_jax.prior import Prior, patch_prior
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.solvers.registry import find_method
from padis_jax.weights import Weights
from padis_jax.window import Window


def with_prior(config: Experiment, case: Case, weights: Weights) -> Case:
    """The case with the prior of the weights.

    Raises:
      UserError: if channels, window or size differ from those that the weights were trained on.
    """
    check_fits(config, case.image_shape, case.window, weights)
    shape = case.image_shape[0], case.image_shape[1]
    frame = weights.frame_for(shape) or frame_for(shape, weights.frame.patch)
    prior = build_prior(config, weights, frame, make_mesh(config.devices, local=True))
    return dataclasses.replace(case, prior=prior)


def check_fits(config: Experiment, image_shape: Sequence[int], window: Window, weights: Weights) -> None:
    """Raises UserError if channels, window or size differ from those that the weights were trained on."""
    h, w, c = image_shape
    channels, trained = weights.network.image_channels, weights.frame.image_shape
    if c != channels:
        remedy = "add --image.grey, or" if (channels, c) == (1, 3) else "save the image in as many, or"
        raise UserError(
            f"{config.weights}: trained on images of {channels} channels, not {c}; {remedy} name others with --weights"
        )
    if window != weights.window:
        raise UserError(f"{config.weights}: trained with the window {weights.window}, but the image has {window}")
    if weights.frame_for((h, w)) is None and not config.new_frame:
        raise UserError(
            f"{config.weights}: trained on images of {trained}, but this one is {(h, w)}; crop or resize it "
            "(--image.crop, --image.resize), name weights without positions, which serve any size, or pass --new-frame "
            "to tile the new size with rescaled positions (the object must fill it as before)"
        )


def build_prior(
    config: Experiment, weights: Weights, frame: Frame, mesh: Mesh | None = None, *, images: int = 1
) -> Prior:
    """The prior of the weights with the tiling that the config asks for.

    Args:
      config: of the run.
      weights: of the network.
      frame: of the image.
      mesh: devices that share the patches of an image, if it has more than one.
      images: side by side on each device.

    Raises:
      UserError: for more tilings than the frame has.
    """
    devices = mesh.size if mesh else 1
    try:
        return patch_prior(
            weights.network,
            weights.params,
            frame,
            tiling=config.tiling,
            tilings=config.tilings,
            overlap=config.overlap,
            patch_batch=patch_batch(config, weights, frame, devices, images=images),
            mesh=mesh if devices > 1 else None,
            mirror=mirrored(config, weights),
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def mirrored(config: Experiment, weights: Weights) -> bool:
    """Whether the tilings of a run are mirrored at random."""
    return weights.mirrored if config.mirror == "auto" else config.mirror == "on"


def patch_batch(config: Experiment, weights: Weights, frame: Frame, devices: int, *, images: int = 1) -> int | None:
    """The patches per network call that the config asks for; "auto" prints what it takes and the estimated memory.

    Args:
      config: of the run.
      weights: of the network.
      frame: of the image.
      devices: that share the patches of an image.
      images: side by side on each device.
    """
    if config.patch_batch != "auto":
        return config.patch_batch or None
    count = -(-frame.patch_count * config.tilings // devices)
    gradient = find_method(config.method).gradient
    size, estimated = choose_patch_batch(
        weights.network, weights.params, frame.tile_shape, count, images=images, gradient=gradient
    )
    print(
        f"patch batch {size} of {count} patches on each device: about {estimated / 2**20:.0f} MiB for the network",
        file=sys.stderr,
    )
    return size
