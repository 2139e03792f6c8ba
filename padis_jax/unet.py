"""The score networks of PaDIS: DDPM++ and NCSN++ U-Nets in the form that EDM gave them (arXiv 2206.00364, appendix F).

    x -> conv -> [ level 0 blocks ] -> down -> [ level 1 blocks ] -> ... -> bottleneck (with attention)
                     |  skip                     |  skip                        |
    y <- conv <- [ level 0 blocks ] <-  up  <- [ level 1 blocks ] <- ... <------+

DDPM++: positional noise embedding, standard encoder, resampling filter [1, 1]. NCSN++: Fourier embedding, residual
encoder, filter [1, 3, 3, 1]. Everything is sized by one frozen `NetworkConfig`; nothing but this file imports Flax.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from jax import Array

from padis_jax.convolution import conv_same, downsample, upsample
from padis_jax.fields import check_fields

Params = Any  # a nested dict of arrays
_HALF = math.sqrt(0.5)
_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_near_zero = nn.initializers.variance_scaling(1e-10, "fan_avg", "uniform")  # of branches added to an identity
_attention = nn.initializers.variance_scaling(0.2, "fan_avg", "uniform")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Size and kind of the network, and the data deviation of its preconditioning.

    Attributes:
      image_channels: channels of the image (1 for CT, 3 for colour), or the slices of a slab; also the output channels.
      position_channels: 2 (x, y), 3 (x, y, z, of slabs), or 0 for a network that does not see positions.
      model_channels: width of the first level.
      channel_mult: width of each level as a multiple of `model_channels`; its length is the number of levels.
      num_blocks: residual blocks per level of the encoder (the decoder has one more).
      attention_levels: levels whose blocks have self-attention (in the decoder only the last block); the first block of
        the bottleneck always has it. Empty for the paper's networks.
      dropout: probability of dropping a feature inside a block while training.
      embedding: "positional" (DDPM++) or "fourier" (NCSN++) embedding of the noise level.
      encoder: "standard" (DDPM++) or "residual" (NCSN++).
      resample_filter: taps of the filter for going down and up a level: (1, 1) or (1, 3, 3, 1).
      sigma_data: standard deviation of the data, in image units, used by the preconditioning.
      dtype: "float32" or "bfloat16", the type in which convolutions compute; parameters stay float32.
    """

    image_channels: int = 1
    position_channels: int = 2
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 4
    attention_levels: tuple[int, ...] = ()
    dropout: float = 0.05
    embedding: Literal["positional", "fourier"] = "positional"
    encoder: Literal["standard", "residual"] = "standard"
    resample_filter: tuple[float, ...] = (1.0, 1.0)
    sigma_data: float = 0.5
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_fields(self, "network.")
        for name, most in (("image_channels", 64), ("model_channels", 4096), ("num_blocks", 64)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"network.{name} is {getattr(self, name)}: it must be 1 to {most}")
        if self.position_channels not in (0, 2, 3):
            raise ValueError(f"network.position_channels is {self.position_channels}: use 2 (x, y), 3 (x, y, z) or 0")
        if not self.channel_mult or not 1 <= min(self.channel_mult) <= max(self.channel_mult) <= 64:
            raise ValueError(f"network.channel_mult is {self.channel_mult}: one positive multiple per level, 1 to 64")
        if self.levels > 12 or self.levels * self.num_blocks > 64:
            raise ValueError(f"{self.levels} levels of {self.num_blocks} blocks: use 12 levels, 64 blocks or less")
        if self.model_channels % 4:
            raise ValueError(
                f"network.model_channels is {self.model_channels}: group normalisation needs a multiple of 4"
            )
        for channels in sorted(self._normalised_widths()):
            if channels % min(32, channels // 4):
                raise ValueError(
                    f"network: model_channels {self.model_channels} and channel_mult {self.channel_mult} make a block "
                    f"of {channels} channels, not divisible into 32 groups; give model_channels a multiple of 32"
                )
        if len(self.attention_levels) > 12 or not set(self.attention_levels) <= set(range(self.levels)):
            raise ValueError(f"network.attention_levels is {self.attention_levels}: levels are 0 to {self.levels - 1}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout is {self.dropout}: it must be in [0, 1)")
        if not 1e-4 <= self.sigma_data <= 1e4:
            raise ValueError(f"network.sigma_data is {self.sigma_data}: it must be positive, 1e-4 to 1e4")
        taps = self.resample_filter
        if len(taps) not in range(2, 17, 2) or not all(abs(t) <= 1e4 for t in taps) or not sum(taps) > 1e-4:
            raise ValueError(f"network.resample_filter is {taps}: use (1, 1), or another even number of taps")

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    @property
    def noise_channels(self) -> int:
        """Length of the noise embedding before its two layers."""
        return self.model_channels * (2 if self.embedding == "fourier" else 1)

    def _normalised_widths(self) -> set[int]:
        """Channels that a block normalises: each level's, and in the decoder those joined with a skip's."""
        width = [m * self.model_channels for m in self.channel_mult]
        below = [*width[1:], width[-1]]  # what arrives from the level below, or from the bottleneck
        above = [self.model_channels, *width[:-1]]  # the first skip of a level is its input
        joined = {w + b for w, b in zip(width, below, strict=True)} | {w + a for w, a in zip(width, above, strict=True)}
        return joined | set(width) | {self.model_channels} | ({2 * w for w in width} if self.num_blocks > 1 else set())

    def check_patch(self, patch: int) -> None:
        """Raises ValueError unless a patch of `patch` pixels can be halved once per level."""
        step = 2 ** (self.levels - 1)
        if patch < step or patch % step:
            raise ValueError(f"a patch of {patch} pixels does not suit {self.levels} levels: use a multiple of {step}")


class Conv3x3(nn.Module):
    """A 3 x 3 convolution whose gradient is fast inside loops; `padding` beyond 1 widens the output."""

    features: int
    init: Any = _uniform
    extra_padding: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if e := self.extra_padding:
            x = jnp.pad(x, ((0, 0), (e, e), (e, e), (0, 0)))
        return conv_same(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None, None]


class GroupNorm(nn.Module):
    """Group normalisation with min(32, C/4) groups, as one affine map per channel and image.

    The mean and mean square of a channel are matrix-vector products with a vector of ones, a bit faster on the CPU than
    reductions over (h, w, channels of the group); studies/speed/network.py compares.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        groups = min(32, c // 4)
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        x = x.astype(jnp.float32)
        flat, mean_over = x.reshape(b, h * w, c), jnp.full((b, h * w), 1 / (h * w), jnp.float32)
        moments = jnp.stack([jnp.einsum("bp,bpc->bc", mean_over, f) for f in (flat, flat * flat)])
        mean, square = reduce(moments, "moment b (group c) -> moment b group", "mean", group=groups)
        widen = functools.partial(jnp.repeat, repeats=c // groups, axis=-1)
        gain = widen(jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + 1e-6)) * scale[None]
        shift = bias[None] - widen(mean) * gain
        return (x * gain[:, None, None] + shift[:, None, None]).astype(self.dtype)


class Attention(nn.Module):
    """Self-attention with one head over all pixels: softmax(q k' / sqrt(C)) v."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _, h, _, c = x.shape
        qkv = nn.Dense(3 * c, kernel_init=_attention, dtype=self.dtype, name="qkv")(
            GroupNorm(self.dtype, name="norm2")(x)
        )
        pixels = rearrange(qkv, "b h w features -> b (h w) features")
        q, k, v = rearrange(pixels, "b pixel (c three) -> three b pixel c", three=3)  # (channel, q/k/v), as in EDM
        logits = jnp.einsum("bqc,bkc->bqk", q, k).astype(jnp.float32) / math.sqrt(c)
        mixed = jnp.einsum("bqk,bkc->bqc", jax.nn.softmax(logits, axis=-1).astype(self.dtype), v)
        out = nn.Dense(c, kernel_init=_near_zero, dtype=self.dtype, name="proj")(mixed)
        return rearrange(out, "b (h w) c -> b h w c", h=h)


class Block(nn.Module):
    """out = (skip(x) + conv1(dropout(silu(norm1(conv0(silu(norm0 x)) + affine(embedding)))))) sqrt(1/2)."""

    features: int
    config: NetworkConfig
    resample: Literal["none", "down", "up"] = "none"
    attention: bool = False

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool) -> Array:
        dtype, taps = jnp.dtype(self.config.dtype), self.config.resample_filter
        maps = {"none": lambda a: a, "down": lambda a: downsample(a, taps), "up": lambda a: upsample(a, taps)}
        resample = maps[self.resample]
        h = resample(jax.nn.silu(GroupNorm(dtype, name="norm0")(x)))
        h = Conv3x3(self.features, dtype=dtype, name="conv0")(h)
        h = h + nn.Dense(self.features, kernel_init=_uniform, dtype=dtype, name="affine")(embedding)[:, None, None]
        h = jax.nn.silu(GroupNorm(dtype, name="norm1")(h))
        with jax.enable_x64(False):  # Flax draws in the default precision, and would drop others
            h = nn.Dropout(self.config.dropout, deterministic=not train)(h)
        h = Conv3x3(self.features, init=_near_zero, dtype=dtype, name="conv1")(h)
        skip = resample(x)
        if self.resample != "none" or x.shape[-1] != self.features:
            skip = nn.Dense(self.features, kernel_init=_uniform, dtype=dtype, name="skip")(skip)
        out = (h + skip) * _HALF
        return (out + Attention(dtype, name="attention")(out)) * _HALF if self.attention else out


class UNet(nn.Module):
    """(patches with positions [b, h, w, c], noise label [b]) -> [b, h, w, image channels], float32."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, x: Array, label: Array, train: bool = False) -> Array:
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        width = [m * cfg.model_channels for m in cfg.channel_mult]
        emb = self._embed(label).astype(dtype)
        for name in ("map_layer0", "map_layer1"):
            emb = jax.nn.silu(nn.Dense(4 * cfg.model_channels, kernel_init=_uniform, dtype=dtype, name=name)(emb))

        x = x.astype(dtype)
        aux = x
        x = Conv3x3(cfg.model_channels, dtype=dtype, name="enc0_conv")(x)
        skips = [x]
        for level in range(cfg.levels):
            if level > 0:
                x = Block(x.shape[-1], cfg, "down", name=f"enc{level}_down")(x, emb, train)
                if cfg.encoder == "residual":
                    f_pad = (len(cfg.resample_filter) - 1) // 2
                    aux = Conv3x3(x.shape[-1], extra_padding=f_pad, dtype=dtype, name=f"enc{level}_aux_residual")(aux)
                    x = aux = (x + downsample(aux, cfg.resample_filter, pad=0)) * _HALF
                skips.append(x)
            for i in range(cfg.num_blocks):
                attention = level in cfg.attention_levels
                x = Block(width[level], cfg, attention=attention, name=f"enc{level}_block{i}")(x, emb, train)
                skips.append(x)

        for level in reversed(range(cfg.levels)):
            if level == cfg.levels - 1:
                x = Block(width[level], cfg, attention=True, name=f"dec{level}_in0")(x, emb, train)
                x = Block(width[level], cfg, name=f"dec{level}_in1")(x, emb, train)
            else:
                x = Block(x.shape[-1], cfg, "up", name=f"dec{level}_up")(x, emb, train)
            for i in range(cfg.num_blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                attention = i == cfg.num_blocks and level in cfg.attention_levels
                x = Block(width[level], cfg, attention=attention, name=f"dec{level}_block{i}")(x, emb, train)

        x = jax.nn.silu(GroupNorm(dtype, name="dec0_aux_norm")(x))
        return Conv3x3(cfg.image_channels, init=_near_zero, dtype=dtype, name="dec0_aux_conv")(x).astype(jnp.float32)

    def _embed(self, label: Array) -> Array:
        n = self.config.noise_channels
        if self.config.embedding == "positional":
            freqs = jnp.asarray(10000.0 ** (-np.arange(n // 2) / (n / 2 - 1)), jnp.float32)
        else:  # random and never trained; a parameter, so that it is saved and imported with the others
            freqs = 2 * math.pi * jax.lax.stop_gradient(self.param("freqs", nn.initializers.normal(16.0), (n // 2,)))
        angle = label[:, None] * freqs[None]
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


@functools.partial(jax.jit, static_argnames="config")  # drops the forward pass that flax's init would compile op by op
def init_network(key: Array, config: NetworkConfig) -> Params:
    """Random parameters: a nested dict of float32 arrays."""
    side = 2 ** (config.levels - 1)
    with jax.enable_x64(False):
        x = jnp.zeros((1, side, side, config.image_channels + config.position_channels))
        return UNet(config).init(key, x, jnp.zeros((1,)))["params"]


def apply_network(
    config: NetworkConfig, params: Params, x: Array, label: Array, *, dropout_key: Array | None = None
) -> Array:
    """The network as a pure function.

    Args:
      config: sizes; static under jit.
      params: from `init_network` or `weights.import_state_dict`.
      x: [b, h, w, image_channels + position_channels]; h, w multiples of 2^(levels - 1).
      label: [b], the noise label (EDM: ln(sigma)/4).
      dropout_key: switches dropout on (training).

    Returns:
      [b, h, w, image_channels], float32.
    """
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    out: Array = UNet(config).apply({"params": params}, x, label, train=dropout_key is not None, rngs=rngs)  # type: ignore[assignment]
    return out


def parameter_count(params: Params) -> int:
    """Number of trained scalars (the fixed Fourier frequencies of NCSN++ included)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
