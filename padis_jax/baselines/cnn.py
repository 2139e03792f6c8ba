"""A plain convolutional denoiser for plug-and-play, after DnCNN and FFDNet: small, local, without positions.

    D(x, sigma) = x - sigma R([x, sigma]),     R: 3 x 3 convolutions with ReLU between them

R predicts the noise in units of sigma (DnCNN: Zhang et al., IEEE TIP 26, 3142, 2017, here without its batch
normalisation), and sees sigma as a constant channel (FFDNet: Zhang et al., IEEE TIP 27, 4608, 2018), so that one
network serves a range of noise levels. It is trained on

    mean ((D(x + sigma z, sigma) - x) / sigma)^2,     ln sigma uniform over the range

Cost: 8 layers of 32 features have 56 000 parameters and take 7 GFLOP for an image of 256 x 256 pixels, an eighth of
what the shipped patch prior takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.unet import Conv3x3, Params


@dataclasses.dataclass(frozen=True)
class CNNConfig:
    """Size of the network and the noise levels that it is for.

    Attributes:
      image_channels: 1 or 3.
      features: width.
      layers: convolutions, at least 2; the field of view is 2 layers + 1 pixels.
      sigma_min: smallest noise level of training, in image units.
      sigma_max: largest.
    """

    image_channels: int = 1
    features: int = 32
    layers: int = 8
    sigma_min: float = 0.005
    sigma_max: float = 0.2

    def __post_init__(self) -> None:
        if not (1 <= self.image_channels <= 64 and 1 <= self.features <= 4096 and 2 <= self.layers <= 128):
            raise ValueError(
                f"cnn: image_channels {self.image_channels} and features {self.features} must be at least 1, "
                f"layers {self.layers} at least 2; at most 64, 4096 and 128"
            )
        if not 1e-8 <= self.sigma_min < self.sigma_max <= 1e8:
            raise ValueError(f"cnn: 0 < sigma_min < sigma_max is needed, got {self.sigma_min} and {self.sigma_max}")


class _Noise(nn.Module):
    """R: [b, h, w, C + 1] -> [b, h, w, C]."""

    config: CNNConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kaiming: Any = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        for i in range(self.config.layers - 1):
            x = jax.nn.relu(Conv3x3(self.config.features, init=kaiming, name=f"conv{i}")(x))
        last = nn.initializers.zeros
        return Conv3x3(self.config.image_channels, init=last, name=f"conv{self.config.layers - 1}")(x)


def init_cnn(key: Array, config: CNNConfig) -> Params:
    """Parameters of a denoiser that returns its input: a nested dict of float32 arrays."""
    return _Noise(config).init(key, jnp.zeros((1, 8, 8, config.image_channels + 1)))["params"]


def cnn_shapes(config: CNNConfig) -> dict[str, tuple[int, ...]]:
    """Dotted name -> shape of every array of `init_cnn`."""
    c, f = config.image_channels, config.features
    widths = [c + 1, *[f] * (config.layers - 1), c]
    pairs = enumerate(itertools.pairwise(widths))
    return {
        f"conv{i}.{leaf}": (3, 3, given, made) if leaf == "kernel" else (made,)
        for i, (given, made) in pairs
        for leaf in ("kernel", "bias")
    }


def denoise_images(config: CNNConfig, params: Params, images: Array, sigma: Array) -> Array:
    """D: noisy images [b, h, w, C] and their noise levels [b] -> [b, h, w, C]."""
    level = sigma[:, None, None, None]
    x = jnp.concatenate([images, jnp.broadcast_to(level, (*images.shape[:3], 1))], axis=-1)
    noise: Array = _Noise(config).apply({"params": params}, x)  # type: ignore[assignment]
    return images - level * noise


def cnn_loss(config: CNNConfig, params: Params, key: Array, images: Array) -> Array:
    """The training loss on clean images [b, h, w, C]: a scalar."""
    sigma_key, noise_key = jax.random.split(key)
    low, high = math.log(config.sigma_min), math.log(config.sigma_max)
    sigma = jnp.exp(jax.random.uniform(sigma_key, (images.shape[0],), jnp.float32, minval=low, maxval=high))
    level = sigma[:, None, None, None]
    noisy = images + level * jax.random.normal(noise_key, images.shape, jnp.float32)
    return jnp.mean(jnp.square((denoise_images(config, params, noisy, sigma) - images) / level))


def cnn_prior(config: CNNConfig, params: Params, image_shape: tuple[int, int]) -> Prior:
    """The network as a denoiser of whole images of `image_shape`, without padding, for `plug_and_play`."""
    return Prior(Partial(_Whole(config), params), frame_for(image_shape, 0), channels=config.image_channels)


@dataclasses.dataclass(frozen=True)
class _Whole:
    """The static half of the denoiser, compared by value so that equal configs share compiled code."""

    config: CNNConfig

    def __call__(self, params: Params, key: Array, image: Array, sigma: Array) -> Array:
        return denoise_images(self.config, params, image[None], jnp.reshape(sigma, (1,)))[0]
