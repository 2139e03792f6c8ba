"""Ways to tell a patch network where its patch lies: input channels that are made of the positions p = (x, y).

    coordinates   p itself, 2 channels: what padis_jax.denoiser gives
    fourier       cos(2 pi B p), sin(2 pi B p) with fixed B ~ N(0, bandwidth^2), 2 x 16 channels (arXiv 2006.10739)
    table         a learned array of 16 x 16 places with 16 channels, between places bilinear
    dropped       coordinates; in training those of a patch are 0 with probability 1/2
    none          no channel

"No position" is p = 0 in all of a patch. No patch has that of its own, since positions rise from pixel to pixel, so one
network can tell it from the centre of the plane. All else is the library's: preconditioning, U-Net, loss. Parameters
are {"network": those of the U-Net}, with "table" [16, 16, 16] beside it for a table.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from padis_jax.denoiser import preconditioned
from padis_jax.loss import denoising_error
from padis_jax.noise import NoiseConfig
from padis_jax.patches import Frame
from padis_jax.prior import Prior, tiled_prior
from padis_jax.unet import NetworkConfig, Params, apply_network, init_network

Way = Literal["coordinates", "none", "dropped", "fourier", "table"]
Given = Literal["own", "zero", "turned", "scaled"]
FREQUENCIES, SIDE, FEATURES = 16, 16, 16
DROPPED = 0.5
SCALE = 0.8  # of positions: those of a plane with 64 pixels of padding where the network was trained with 24


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A way and, of Fourier features, the standard deviation of frequencies, in periods per unit of position."""

    way: Way = "coordinates"
    bandwidth: float = 0.0

    @property
    def channels(self) -> int:
        """That the network sees beside the image's."""
        return {"none": 0, "fourier": 2 * FREQUENCIES, "table": FEATURES}.get(self.way, 2)

    @property
    def frequencies(self) -> np.ndarray:
        """B, float32 [16, 2], the same for every bandwidth but for its length."""
        return (self.bandwidth * np.random.default_rng(0).standard_normal((FREQUENCIES, 2))).astype(np.float32)


def encode(encoding: Encoding, params: Params, positions: Array) -> Array:
    """Positions [b, h, w, 2] -> channels [b, h, w, F]."""
    if encoding.way == "fourier":
        angle = 2 * math.pi * jnp.einsum("bhwp,fp->bhwf", positions, jnp.asarray(encoding.frequencies))
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    if encoding.way == "table":
        return looked_up(params["table"], positions)
    return positions if encoding.channels else positions[..., :0]


def looked_up(table: Array, positions: Array) -> Array:
    """Table [n, m, F], first axis y, whose corners lie at -1 and 1, between its places bilinear: [b, h, w, F].

    By hat functions, whose gradient has no scatter.
    """

    def hats(at: Array, count: int) -> Array:
        away = (at[..., None] + 1) * ((count - 1) / 2) - jnp.arange(count, dtype=jnp.float32)[None, None, None]
        return jnp.maximum(1 - jnp.abs(away), 0)

    rows, columns = (hats(positions[..., axis], table.shape[1 - axis]) for axis in (1, 0))
    along = jnp.einsum("bhwj,ijc->bhwic", columns, table)
    return jnp.einsum("bhwi,bhwic->bhwc", rows, along)


def init(key: Array, encoding: Encoding, network: NetworkConfig) -> Params:
    """Random parameters; of one key all but the first kernel and the table are the same for every encoding.

    The table begins as large as coordinates are, with a standard deviation of 1 / sqrt(3).
    """
    network_key, kernel_key, table_key = jax.random.split(key, 3)
    blind = init_network(network_key, dataclasses.replace(network, position_channels=0))
    shape = (3, 3, network.image_channels + encoding.channels, network.model_channels)
    kernel = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")(kernel_key, shape)
    params: dict[str, Params] = {"network": {**blind, "enc0_conv": {**blind["enc0_conv"], "kernel": kernel}}}
    if encoding.way == "table":
        params["table"] = jax.random.normal(table_key, (SIDE, SIDE, FEATURES)) / math.sqrt(3)
    return params


def denoise(
    encoding: Encoding,
    network: NetworkConfig,
    params: Params,
    patches: Array,
    positions: Array,
    sigma: Array,
    *,
    dropout_key: Array | None = None,
) -> Array:
    """The expected clean patches: `padis_jax.denoiser.denoise_patches` with this encoding."""
    told = encode(encoding, params, positions)

    def raw(scaled: Array, label: Array) -> Array:
        x = jnp.concatenate([scaled, told], axis=-1) if encoding.channels else scaled
        return apply_network(network, params["network"], x, label, dropout_key=dropout_key)

    return preconditioned(raw, network.sigma_data, patches, sigma)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The library's training loss with an encoding, for `training.step`; unless `train` nothing is dropped."""

    encoding: Encoding
    network: NetworkConfig
    noise: NoiseConfig
    train: bool = True

    def __call__(self, params: Params, key: Array, patches: Array, positions: Array) -> Array:
        """(params, key, patches [b, p, p, c], positions [b, p, p, 2]) -> scalar."""
        if self.encoding.way == "dropped" and self.train:
            key, drop_key = jax.random.split(key)
            kept = jax.random.bernoulli(drop_key, 1 - DROPPED, (patches.shape[0], 1, 1, 1))
            positions = jnp.where(kept, positions, 0)

        def clean(noisy: Array, sigma: Array, dropout_key: Array) -> Array:
            key = dropout_key if self.train else None
            return denoise(self.encoding, self.network, params, noisy, positions, sigma, dropout_key=key)

        return denoising_error(key, clean, self.network.sigma_data, self.noise, patches)


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """(params, patches, positions, sigma) -> patches, compared by value; `given` is what becomes of the positions.

    "own" leaves them, "zero" is no position, "turned" are those of the opposite side of the plane, "scaled" those of
    another padding.
    """

    encoding: Encoding
    network: NetworkConfig
    given: Given = "own"

    def __call__(self, params: Params, patches: Array, positions: Array, sigma: Array) -> Array:
        factor = {"own": 1.0, "zero": 0.0, "turned": -1.0, "scaled": SCALE}[self.given]
        return denoise(self.encoding, self.network, params, patches, factor * positions, sigma)


def prior_of(denoiser: Denoiser, params: Params, frame: Frame) -> Prior:
    """The prior of whole images."""
    return tiled_prior(Partial(denoiser, params), frame, channels=denoiser.network.image_channels)
