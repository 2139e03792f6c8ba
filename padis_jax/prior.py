"""From a denoiser of patches to a denoiser of whole images, which is all that a solver sees of the prior.

PaDIS (arXiv 2406.02462, section 3.1) writes the density of an image as a product over all tilings of its padded plane
and over the patches of each. One tiling, drawn at random, gives an unbiased estimate of the score averaged over
tilings:

    score(x) = (D(x) - x) / sigma^2,    D(x) = untile(patch denoiser(tile(x), positions)),  0 outside of the tiles,

because the clean value outside of the tiles is known to be 0. Averaging K tilings lowers the variance of the estimate
at K times the cost. Fixed overlapping patches (`tilings.Overlap`) are what the paper compares with. A frame whose
patch is the whole image makes the whole-image model: one tile, no padding, no offsets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax
from jax import Array
from jax.sharding import Mesh
from jax.tree_util import Partial

from padis_jax.denoiser import denoise_patches
from padis_jax.fields import check_count
from padis_jax.mirror import PatchDenoise
from padis_jax.patches import Frame
from padis_jax.tilings import Overlap, Overlapping, SharedTilings, Tilings
from padis_jax.unet import NetworkConfig, Params

Denoise = Callable[[Array, Array, Array], Array]  # (key, plane [Hp, Wp, C], sigma []) -> plane
TilingName = Literal["random", "fixed", "overlap_average", "overlap_stitch"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prior:
    """A denoiser of whole images and the frame it works on. A pytree: its arrays are arguments of jitted functions.

    Attributes:
      denoise: (key, noisy plane [Hp, Wp, C], sigma []) -> the expected clean plane. A function, or a pytree that can be
        called (`jax.tree_util.Partial`), whose arrays then become arguments of what is compiled, not constants.
      frame: pads and crops, and knows the positions.
      channels: C.
      tilings: patch tilings per call of `denoise`, that is the cost of a call in network evaluations of the image.
    """

    denoise: Denoise
    frame: Frame = dataclasses.field(metadata={"static": True})
    channels: int = dataclasses.field(default=1, metadata={"static": True})
    tilings: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if callable(self.denoise) and jax.tree_util.all_leaves([self.denoise]):
            object.__setattr__(self, "denoise", Partial(self.denoise))  # a bare function is not a pytree


def patch_prior(
    config: NetworkConfig,
    params: Params,
    frame: Frame,
    *,
    tiling: TilingName = "random",
    tilings: int = 1,
    overlap: int = 8,
    patch_batch: int | None = None,
    mesh: Mesh | None = None,
    mirror: bool = False,
) -> Prior:
    """The prior of a patch network.

    >>> import jax, padis_jax as pj
    >>> from padis_jax.patches import frame_for
    >>> from padis_jax.unet import NetworkConfig, init_network
    >>> network = NetworkConfig(model_channels=8, channel_mult=(1,), num_blocks=1)
    >>> params = init_network(jax.random.key(0), network)
    >>> prior = pj.patch_prior(network, params, frame_for((16, 16), 8))
    >>> plane = prior.frame.pad(jax.numpy.zeros((16, 16, 1)))
    >>> prior.denoise(jax.random.key(1), plane, 0.1).shape == plane.shape
    True

    Args:
      config: the network's config.
      params: its parameters.
      frame: the frame it was trained with.
      tiling: "random" draws the offset of the tiling from the key of each call; "fixed" always takes the middle one,
        which leaves seams and is there to show them; "overlap_average" and "overlap_stitch" take fixed overlapping
        patches, more of them than a tiling has (counted as one evaluation all the same).
      tilings: K, random tilings to average over in each call, with different offsets.
      overlap: pixels that overlapping patches share with their neighbours; not used by the others.
      patch_batch: at most so many patches at a time (in chunks of equal size), so that the memory of a call and of its
        gradient is that of one chunk; the gradient then computes each chunk twice. None: all at once.
      mesh: devices that share the patches of an image, `patch_batch` at a time on each. The plane is whole on all of
        them; a call gathers its patches once, and DPS no more than that (tilings.py). None: one device.
      mirror: mirror the patches of a call left to right with probability 1/2, for a network that was trained on images
        and their mirror images (mirror.py). Of random tilings: fixed and overlapping patches draw nothing.

    Returns:
      A `Prior` for images [H, W, config.image_channels].

    Raises:
      ValueError: if a setting is out of range, or the frame's patch does not suit the network.
    """
    if config.position_channels == 3:
        raise ValueError("the network sees z, so that it is one of slabs: use slab_prior, for volumes")
    for side in frame.tile_shape:
        config.check_patch(side)
    return tiled_prior(
        Partial(NetworkDenoise(config), params),
        frame,
        channels=config.image_channels,
        tiling=tiling,
        tilings=tilings,
        overlap=overlap,
        patch_batch=patch_batch,
        mesh=mesh,
        mirror=mirror,
    )


def tiled_prior(
    denoise: PatchDenoise,
    frame: Frame,
    *,
    channels: int = 1,
    tiling: TilingName = "random",
    tilings: int = 1,
    overlap: int = 8,
    patch_batch: int | None = None,
    mesh: Mesh | None = None,
    mirror: bool = False,
) -> Prior:
    """The prior of any denoiser of patches: (patches [b, P, P, C], positions [b, P, P, 2], sigma [b]) -> patches.

    The other arguments are those of `patch_prior`.
    """
    if tiling not in get_args(TilingName):
        raise ValueError(f"tiling is {tiling!r}: use one of {', '.join(map(repr, get_args(TilingName)))}")
    offsets = max(1, frame.margin[0] * frame.margin[1]) if tiling == "random" else 1
    check_count("tilings", tilings, -1)
    if not 1 <= tilings <= offsets:
        raise ValueError(f"tilings is {tilings}: this frame has 1 to {offsets} {tiling} tilings")
    if patch_batch is not None:
        check_count("patch_batch", patch_batch, -1)
    if patch_batch is not None and patch_batch < 1:
        raise ValueError(f"patch_batch is {patch_batch}: use at least 1, or None for all patches at once")
    if jax.tree_util.all_leaves([denoise]):
        denoise = Partial(denoise)
    if tiling == "overlap_average" or tiling == "overlap_stitch":
        join: Literal["average", "stitch"] = "average" if tiling == "overlap_average" else "stitch"
        return Prior(Overlapping(denoise, Overlap(frame, overlap, join), patch_batch), frame, channels)
    parts = (denoise, frame, tiling == "random", tilings, patch_batch)
    mirror = mirror and tiling == "random"
    if mesh is None or mesh.size == 1:
        return Prior(Tilings(*parts, mirror=mirror), frame, channels=channels, tilings=tilings)
    whole = SharedTilings(*parts, mesh, mirror=mirror)
    return Prior(whole, frame, channels=channels, tilings=tilings)


@dataclasses.dataclass(frozen=True)
class NetworkDenoise:
    """The static half of a patch denoiser, compared by value so that equal configs share compiled code."""

    config: NetworkConfig

    def __call__(self, params: Params, patches: Array, positions: Array, sigma: Array) -> Array:
        return denoise_patches(self.config, params, patches, positions, sigma)
