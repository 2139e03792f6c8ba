"""JAX's 64-bit mode: inputs of any float type, figures and types as in a run without it.

`python tests/test_x64.py FILE` writes the figures of a process; the test starts one with JAX_ENABLE_X64=1.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, NETWORK, random_params, random_state

import padis_jax as pj
from padis_jax.denoiser import denoise_patches
from padis_jax.loss import DenoisingLoss
from padis_jax.measurements.simulate import honest_measurement, paper_measurement
from padis_jax.metrics import psnr, ssim
from padis_jax.operators import (
    Blur,
    Downsample,
    FanBeam,
    Inpaint,
    ParallelBeam,
    box_mask,
    free_form_mask,
    from_functions,
    gaussian_kernel,
    random_mask,
    stack,
    stroke_mask,
)
from padis_jax.patches import frame_for
from padis_jax.prior import patch_prior, tiled_prior
from padis_jax.solvers.registry import METHODS
from padis_jax.training import train_step
from padis_jax.unet import init_network

N = 12
ANGLES = np.arange(5) * np.pi / 5
MASK = np.arange(N * N).reshape(N, N) % 3 != 0
MATRIX = np.random.default_rng(1).normal(size=(N, N)) / N
OPERATORS = {
    "inpaint": lambda: Inpaint(mask=MASK),
    "parallel": lambda: ParallelBeam(image_shape=(N, N), angles=ANGLES, detector_count=20),
    "fan": lambda: FanBeam(
        image_shape=(N, N), angles=2 * ANGLES, detector_count=20, source_distance=20.0, detector_distance=10.0
    ),
    "circular": lambda: Blur(image_shape=(N, N), kernel=gaussian_kernel(0.7)),
    "reflect": lambda: Blur(image_shape=(N, N), kernel=gaussian_kernel(0.7), boundary="reflect"),
    "downsample": lambda: Downsample(image_shape=(N, N), factor=2),
    "stack": lambda: stack([np.float64(2) * Inpaint(mask=MASK), Downsample(image_shape=(N, N), factor=2)]),
    "functions": lambda: from_functions(lambda x: jnp.asarray(MATRIX) @ x, image_shape=(N, N)),
}


def smooth(patches, positions, sigma):
    return jnp.tanh(patches / (1 + sigma[:, None, None, None] ** 2)) * jnp.asarray(np.float64(0.9))


def figures():
    """Name -> array, of everything that draws numbers or iterates."""
    image = np.random.default_rng(0).random((N, N, 1))
    frame, found = frame_for((N, N), 4), {}
    prior, two = (tiled_prior(smooth, frame, tilings=tilings) for tilings in (1, 2))
    options = {"levels": 3, "sigma_max": np.float64(0.5), "start": image}
    made = {name: make() for name, make in OPERATORS.items()}
    y = {
        name: np.asarray(
            operator(jnp.asarray(image if name != "functions" else image[..., 0], jnp.float32)), np.float64
        )
        for name, operator in made.items()
    }
    pairs = [("inpaint", solver) for solver in METHODS] + [(name, "dds") for name in OPERATORS] + [("reflect", "ddnm")]
    for name, solver in dict.fromkeys(pairs):
        result = pj.reconstruct(5, y[name], made[name], prior, solver=solver, **options)
        found[f"{name} {solver}"], found[f"{name} {solver} residual"] = result.image, result.residual
    wide = jnp.asarray(y["inpaint"])  # float64 where there are such
    settings = pj.DDS(consistency=np.float64(0.01), eta=0, noise=np.float32(0.1))
    traced = jax.jit(lambda y: pj.reconstruct(2**40 + 3, y, made["inpaint"], two, solver=settings, **options).image)
    found["settings"] = traced(wide)
    found["samples"] = pj.draw_samples(1, wide, made["inpaint"], prior, 2, levels=2).images
    found["tv"] = pj.total_variation(y["fan"], made["fan"], settings=pj.TV(iterations=20)).image
    found["half"] = pj.total_variation(
        jnp.asarray(y["fan"], jnp.float16), made["fan"], settings=pj.TV(iterations=5)
    ).image
    std = np.random.default_rng(3).uniform(0.1, 1, y["parallel"].shape)
    for solver in ("dds", "pnp_admm"):
        result = pj.reconstruct(5, y["parallel"], made["parallel"], prior, solver=solver, noise_std=std, **options)
        found[f"weighted {solver}"] = result.image
    settings = pj.TV(weight=0.1, iterations=20)
    found["weighted tv"] = pj.total_variation(y["fan"], made["fan"], settings=settings, noise_std=std).image
    network = patch_prior(NETWORK, random_params(), frame)
    found["generate"] = pj.generate(-1, network, levels=3)
    found["init"] = init_network(jax.random.key(1), NETWORK)["enc0_conv"]["kernel"]
    patches = np.random.default_rng(2).random((4, 8, 8, 1))
    positions = np.zeros((4, 8, 8, 2))
    found["denoised"] = denoise_patches(NETWORK, random_params(), patches, positions, np.full(4, 0.1))
    state = random_state()
    state = state._replace(optimiser=jax.tree.map(jnp.abs, state.optimiser))  # Adam takes the root of second moments
    arguments = (jax.random.key(3), state, jnp.asarray(patches, jnp.float32), jnp.asarray(positions, jnp.float32))
    after, metrics = train_step(DenoisingLoss(NETWORK), CONFIG.optimiser, 100, *arguments)
    found["trained"], found["loss"] = after.params["enc0_conv"]["kernel"], metrics.loss
    keys = jax.random.split(jax.random.key(9), 5)
    found["random"] = random_mask(keys[0], (N, N))
    found["box"] = box_mask(keys[1], (N, N), size=(3, 4))
    found["strokes"] = stroke_mask(keys[2], (64, 64))
    found["free_form"] = free_form_mask(keys[2], (64, 64))
    found["counts"] = honest_measurement(keys[3], image, made["parallel"], photons=200.0).y
    found["noisy"] = paper_measurement(keys[4], image, made["inpaint"], sigma=0.1).y
    found["psnr"], found["ssim"] = psnr(image, 0.9 * image), ssim(image, 0.9 * image)
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.slow
def test_figures_and_types_of_a_process_in_64_bits_are_those_of_one_in_32(tmp_path):
    path = tmp_path / "figures.npz"
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with jax.numpy_dtype_promotion("standard"):
        expected = figures()
    with np.load(path) as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            if name not in ("psnr", "ssim"):
                assert found[name].dtype == value.dtype, name
            assert np.isfinite(value).all(), name
            gap = np.abs(found[name].astype(float) - value).max() / max(np.abs(value.astype(float)).max(), 1e-3)
            assert gap < 1e-3, (name, gap)


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **figures())
