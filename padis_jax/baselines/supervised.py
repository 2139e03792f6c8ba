"""The supervised baseline: a U-Net that corrects the quick classical image (FBPConvNet; Jin et al., IEEE TIP 26, 4509,
2017).

    x = start(y) + F(start(y)),     trained on  mean (start(y) + F(start(y)) - x)^2

F is the network of unet.py with a constant noise label and without positions. It is trained for one operator and one
noise level, with pairs that are simulated, and serves for no other.

Cost: one pass per image, 48 GFLOP for 256 x 256 pixels at 32 channels (multipliers 1, 2, 3, 3), about one evaluation of
the shipped patch prior; but a training run for every scan.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from padis_jax.unet import NetworkConfig, Params, apply_network


def restore(config: NetworkConfig, params: Params, images: Array, *, dropout_key: Array | None = None) -> Array:
    """Classical images [b, H, W, C] -> restored ones.

    Args:
      config: the network's config, with position_channels 0.
      params: its parameters.
      images: A.start(y) of each measurement; H and W multiples of 2^(levels - 1).
      dropout_key: switches dropout on (training).

    Raises:
      ValueError: if the config has positions, or the images do not fit it.
    """
    if config.position_channels:
        raise ValueError("supervised: the network sees no positions; set position_channels to 0")
    if images.ndim != 4 or images.shape[-1] != config.image_channels:
        raise ValueError(f"supervised: expected images [b, H, W, {config.image_channels}], got {images.shape}")
    for side in images.shape[1:3]:
        config.check_patch(side)
    label = jnp.zeros(images.shape[:1])
    return images + apply_network(config, params, images, label, dropout_key=dropout_key)


def supervised_loss(config: NetworkConfig, params: Params, key: Array, starts: Array, truths: Array) -> Array:
    """Mean squared error of restored images; starts and truths [b, H, W, C]; the key is for dropout."""
    return jnp.mean(jnp.square(restore(config, params, starts, dropout_key=key) - truths))
