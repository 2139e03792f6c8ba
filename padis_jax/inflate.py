"""A network of slabs from one of images, as networks of pictures are inflated to those of films (arXiv 1705.07750).

    kernel of the first convolution, slice i:  kernel of the image / d;     of a new position channel (z):  0
    kernel of the last convolution, slice i:   kernel of the image

So d equal slices give d times what the network of images makes of one. Training then tells the slices apart.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from padis_jax.unet import NetworkConfig, Params


def inflatable(image: NetworkConfig, slab: NetworkConfig) -> bool:
    """Whether `inflate` makes parameters of `slab` from those of `image`: they differ in their channels only."""
    same = dataclasses.replace(slab, image_channels=1, position_channels=image.position_channels, dropout=image.dropout)
    return same == image and slab.image_channels > 1 and slab.position_channels >= image.position_channels


def inflate(params: Params, image: NetworkConfig, slab: NetworkConfig) -> Params:
    """Parameters of a network of slabs that treats d equal slices as the network of images treats one.

    Args:
      params: of the network of images (one channel).
      image: its sizes.
      slab: sizes of the network of slabs, `inflatable`; d is its image_channels.

    Returns:
      Parameters of `slab`.

    Raises:
      ValueError: if the networks differ in more than channels.
    """
    if not inflatable(image, slab):
        raise ValueError(f"{slab} cannot be made from {image}")
    depth, new = slab.image_channels, slab.position_channels - image.position_channels
    out = {name: dict(layer) if isinstance(layer, dict) else layer for name, layer in params.items()}
    for name in (name for name in params if name == "enc0_conv" or name == "enc1_aux_residual"):
        kernel = jnp.asarray(params[name]["kernel"])
        z = jnp.zeros((*kernel.shape[:2], new, kernel.shape[3]), kernel.dtype)
        out[name]["kernel"] = jnp.concatenate([*[kernel[:, :, :1] / depth] * depth, kernel[:, :, 1:], z], axis=2)
    last = params["dec0_aux_conv"]
    out["dec0_aux_conv"] = {name: jnp.concatenate([jnp.asarray(last[name])] * depth, axis=-1) for name in last}
    return out
