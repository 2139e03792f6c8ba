"""The prior of a weights file for the images of a set: a prior of colour images serves grey ones, too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from padis_jax.errors import UserError
from padis_jax.prior import Denoise, Prior, patch_prior
from padis_jax.weights import load_weights
from studies.other_images import Images


def grey_prior(colour: Prior) -> Prior:
    """The prior of grey images that a prior of colour images holds: r = g = b = x.

    Noise of one channel becomes independent noise of three of sqrt(3) times the deviation, whose mean it is, by adding
    noise that sums to 0 over the channels; the image is the mean of the three denoised channels.
    """
    return Prior(Partial(_grey, colour.denoise), colour.frame, channels=1, tilings=colour.tilings)


def _grey(denoise: Denoise, key: Array, plane: Array, sigma: Array) -> Array:
    noise_key, key = jax.random.split(key)
    level = jnp.sqrt(jnp.float32(3)) * sigma
    noise = level * jax.random.normal(noise_key, (*plane.shape[:2], 3), jnp.float32)
    noise = noise - jnp.mean(noise, -1, keepdims=True)
    return jnp.mean(denoise(key, jnp.repeat(plane, 3, -1) + noise, level), -1, keepdims=True)


def prior_of(path: str, images: Images, patch_batch: int | None = None) -> Prior:
    """The prior of a weights file for images of a set.

    Raises:
      UserError: for a file that cannot be read, or is for images of another size.
    """
    weights = load_weights(path)
    frame = weights.frame_for(images.pictures.shape)
    if frame is None:
        raise UserError(f"{path}: trained on {weights.frame.image_shape} pixels, images have {images.pictures.shape}")
    prior = patch_prior(weights.network, weights.params, frame, patch_batch=patch_batch, mirror=weights.mirrored)
    return grey_prior(prior) if (prior.channels, images.pictures.channels) == (3, 1) else prior
