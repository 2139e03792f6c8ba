"""How a training run is doing: loss on held-out patches, and pictures of them denoised."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from padis_jax.batches import Batch
from padis_jax.denoiser import denoise_patches
from padis_jax.figures import patch_grid, save_figure
from padis_jax.loss import denoising_loss
from padis_jax.noise import NoiseConfig
from padis_jax.slab_batches import SlabBatch
from padis_jax.unet import NetworkConfig, Params

PICTURE_SIGMAS = (0.05, 0.2, 0.8)
PICTURE_PATCHES = 2 * len(PICTURE_SIGMAS)


def validate(network: NetworkConfig, noise: NoiseConfig, params: Params, batch: Batch | SlabBatch) -> float:
    """Loss of the parameters on a fixed batch with fixed noise, dropout off."""
    return float(_jitted_loss(network, noise, params, *batch))


@jax.jit
def _to_noisy(key: jax.Array, patches: jax.Array, sigma: jax.Array) -> jax.Array:
    return patches + sigma[:, None, None, None] * jax.random.normal(key, patches.shape, jnp.float32)


_jitted_loss = jax.jit(
    lambda network, noise, params, patches, positions, kept=None: denoising_loss(
        jax.random.key(0), network, noise, params, patches, positions, train=False, kept=kept
    ),
    static_argnums=(0, 1),
)
_jitted_denoise = jax.jit(denoise_patches, static_argnums=0)


def write_pictures(workdir: Path, network: NetworkConfig, params: Params, batch: Batch | SlabBatch, step: int) -> None:
    """Clean, noisy and denoised validation patches at a few noise levels; of slabs their middle slice."""
    rows = PICTURE_PATCHES
    sigma = jnp.repeat(jnp.asarray(PICTURE_SIGMAS), 2)
    patches, positions = jnp.asarray(batch.patches[:rows]), jnp.asarray(batch.positions[:rows])
    if len(patches) < rows:
        return
    noisy = _to_noisy(jax.random.key(1), patches, sigma)
    clean = _jitted_denoise(network, params, noisy, positions, sigma)
    shown = {"clean": patches, "noisy": noisy, "denoised": clean}
    if isinstance(batch, SlabBatch):
        middle = patches.shape[-1] // 2
        shown = {name: found[..., middle : middle + 1] for name, found in shown.items()}
    figure = patch_grid(shown, labels=[f"$\\sigma$ = {float(s):g}" for s in sigma])
    save_figure(workdir / "pictures" / f"step_{step:07d}.png", figure, dpi=100)
