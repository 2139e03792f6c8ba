"""Seams: a fixed tiling leaves them in the image, random tilings do not.

The prior is the exact denoiser of patches of a smooth Gaussian process. It knows only its patch, so a patch is denoised
as if nothing lay beside it: with a fixed tiling the sampled patches are independent of each other, and the image jumps
where they meet. Random tilings take every border in turn.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from padis_jax.operators import from_functions
from padis_jax.patches import frame_for
from padis_jax.prior import tiled_prior
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.reconstruct import reconstruct

PATCH = 8
FRAME = frame_for((44, 44), PATCH)


def process_denoiser(patches_basis, patches, positions, sigma):
    """C (C + sigma^2)^-1 x for a patch covariance C = V diag(w) V'."""
    w, v = patches_basis
    b = patches.shape[0]
    coefficients = patches.reshape(b, -1) @ v
    shrink = w[None] / (w[None] + sigma[:, None] ** 2)
    return ((coefficients * shrink) @ v.T).reshape(patches.shape)


def smooth_process():
    """Covariance exp(-d^2 / 2 l^2) with l half a patch, standard deviation 0.3."""
    y, x = np.divmod(np.arange(PATCH**2), PATCH)
    d2 = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    w, v = np.linalg.eigh(0.09 * np.exp(-d2 / (2 * (PATCH / 2) ** 2)) + 1e-5 * np.eye(PATCH**2))
    return Partial(process_denoiser, (jnp.asarray(w, jnp.float32), jnp.asarray(v, jnp.float32)))


def jumps(image):
    """Root mean square difference of neighbouring columns and rows, by residue of the border modulo the patch [P]."""
    across, down = np.diff(image, axis=1) ** 2, np.diff(image, axis=0) ** 2
    means = [np.mean(np.concatenate([across[:, r::PATCH].ravel(), down[r::PATCH].ravel()])) for r in range(PATCH)]
    return np.sqrt(means)


@pytest.mark.parametrize(
    ("solver", "settings", "inner"),
    [pytest.param("dds", None, 1, marks=pytest.mark.slow), ("dps", DPS(), 4), ("langevin", Langevin(eps=0.5), 4)],
)
def test_seams_vanish_with_random_tilings_and_not_with_a_fixed_one(solver, settings, inner):
    # The data say little (eight means over strips), so that what is seen is the prior.
    strips = jnp.repeat(jnp.eye(4), 11, axis=1) / 11

    def forward(image):
        return jnp.stack([strips @ image.mean(1), strips @ image.mean(0)])

    operator = from_functions(forward, image_shape=(44, 44))
    ratios = {}
    for tiling in ("random", "fixed"):
        prior = tiled_prior(smooth_process(), FRAME, tiling=tiling)
        image = reconstruct(
            jax.random.key(1), jnp.zeros((2, 4)), operator, prior, solver=settings or solver,
            levels=60, inner=inner, sigma_max=2.0, sigma_min=0.01,
        ).image  # fmt: skip
        by_residue = jumps(np.asarray(image[..., 0]))
        ratios[tiling] = by_residue.max() / np.median(by_residue)
        seam = (FRAME.margin[1] // 2 - FRAME.margin[1] - 1) % PATCH
        if tiling == "fixed":
            assert by_residue.argmax() == seam
    assert ratios["fixed"] > 2.0
    assert ratios["random"] < 1.3
