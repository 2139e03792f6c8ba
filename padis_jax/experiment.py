"""A simulated CT experiment on a known image: measure it, reconstruct it by several methods, score them.

What sample.py shows and benchmarks/head_ct.py tabulates, as functions of one frozen config.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.experiment_config import (
    DEFAULT_IMAGE,
    DEFAULT_WEIGHTS,
    Experiment,
    ImageConfig,
    ScanConfig,
    SolverConfig,
    TVConfig,
)
from padis_jax.images import HOUNSFIELD, ImageSet, Window, read_images
from padis_jax.memory import choose_patch_batch
from padis_jax.mesh import make_mesh
from padis_jax.metrics import head_mask, psnr, relative_error, rmse, ssim, ssim_gaussian
from padis_jax.operators import ParallelBeam
from padis_jax.operators.measurement import Measurement, honest_measurement, paper_measurement
from padis_jax.operators.tomography import RayTransform
from padis_jax.patches import Frame, frame_for
from padis_jax.prior import Prior, patch_prior
from padis_jax.solvers import sampling
from padis_jax.solvers.daps import DAPS
from padis_jax.solvers.ddnm import DDNM
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.diffpir import DiffPIR
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.predictor_corrector import PredictorCorrector
from padis_jax.solvers.reconstruct import Settings, reconstruct
from padis_jax.solvers.samples import Samples, draw_samples
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import Weights

__all__ = [
    "DEFAULT_IMAGE",
    "DEFAULT_WEIGHTS",
    "Experiment",
    "ImageConfig",
    "Row",
    "ScanConfig",
    "Scene",
    "SolverConfig",
    "TVConfig",
    "image_key",
    "load_scene",
    "make_prior",
    "missing_default",
    "run_solver",
    "run_tv",
    "score",
    "solver_settings",
    "timed",
]

TV_WEIGHTS = {"honest": 1.0, "paper": 0.003}  # python -m benchmarks.tune --method tv --vary tv.weight ...
SSIM_WINDOW = 11  # pixels: smaller images have no SSIM


class Scene(NamedTuple):
    """A measured image: truth [H, W, C] in [0, 1], its window and name, operator and measurement.

    `rows_up` says that row 0 is the bottom of the picture.
    """

    truth: np.ndarray
    window: Window
    name: str
    operator: RayTransform
    measurement: Measurement
    rows_up: bool = False


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      method: its name.
      psnr: dB, after clipping to [0, 1].
      ssim: 7 x 7 uniform window.
      ssim_gaussian: 11 x 11 Gaussian window.
      rmse: root mean square error in the window's unit, within the head where the unit is HU.
      residual: ||y - A x|| / ||y||.
      evaluations: network evaluations of the whole image.
      seconds: wall-clock, compilation included.
    """

    method: str
    psnr: float
    ssim: float
    ssim_gaussian: float
    rmse: float
    residual: float
    evaluations: int
    seconds: float


def image_key(seed: int, index: int) -> Array:
    """The key of one image: independent of the batch that it is computed in."""
    return jax.random.fold_in(jax.random.key(seed), index)


def load_scene(config: Experiment, images: ImageSet | None = None) -> Scene:
    """Reads the image and measures it.

    Args:
      config: the experiment.
      images: the images of `config.image.path`, if they are read already.

    Raises:
      UserError: for a missing file or image, or a pixel size that is neither in the file nor in the config.
    """
    if images is None:
        images = read_images(config.image.path)
    chosen = images.select([config.image.index])
    truth = chosen.images[0]
    if min(truth.shape[:2]) < SSIM_WINDOW:
        raise UserError(
            f"{config.image.path}: {truth.shape[:2]} pixels; at least {SSIM_WINDOW} x {SSIM_WINDOW} are needed"
        )
    angles = (np.arange(config.scan.views) + 0.5) * np.pi / config.scan.views
    operator = ParallelBeam(image_shape=truth.shape[:2], angles=angles, detector_count=config.scan.bins)
    key = jax.random.fold_in(image_key(config.seed, config.image.index), 0)
    measurement = measure(config, key, chosen, operator)
    return Scene(truth, chosen.window, chosen.names[0], operator, measurement, chosen.rows_up)


def measure(config: Experiment, key: Array, chosen: ImageSet, operator: RayTransform) -> Measurement:
    """The measurement of the first image of a set, under the config's protocol.

    Raises:
      UserError: if the pixel size is needed and neither in the file nor in the config.
    """
    truth = jnp.asarray(chosen.images[0])
    if config.scan.protocol == "paper":
        return paper_measurement(key, truth, operator)
    pixel_mm = config.scan.pixel_mm or (chosen.spacing[-1] if chosen.spacing else 0.0)
    if not pixel_mm:
        raise UserError(
            f"{config.image.path}: the honest protocol needs the pixel size, which this file does not tell; "
            "give --scan.pixel-mm, or use --scan.protocol paper"
        )
    return honest_measurement(key, truth, operator, photons=config.scan.photons, pixel_mm=pixel_mm)


def make_prior(config: Experiment, weights: Weights, scene: Scene) -> Prior:
    """The prior of the weights, on the scene's image.

    Raises:
      UserError: if channels, window or size differ from those that the weights were trained on.
    """
    h, w, c = scene.truth.shape
    if c != weights.network.image_channels:
        raise UserError(f"{config.weights}: trained on images of {weights.network.image_channels} channels, not {c}")
    if scene.window != weights.window:
        raise UserError(f"{config.weights}: trained with the window {weights.window}, but the image has {scene.window}")
    frame = weights.frame
    if frame.image_shape != (h, w):
        if not config.new_frame:
            raise UserError(
                f"{config.weights}: trained on images of {frame.image_shape}, but this one is {(h, w)}; resize it, or "
                "pass --new-frame to tile it anew, positions rescaled to it (the object must fill it as before)"
            )
        frame = frame_for((h, w), frame.patch)
    mesh = make_mesh(config.devices, local=True)
    try:
        return patch_prior(
            weights.network,
            weights.params,
            frame,
            tiling=config.tiling,
            tilings=config.tilings,
            overlap=config.overlap,
            patch_batch=patch_batch(config, weights, frame, mesh.size),
            mesh=mesh if mesh.size > 1 else None,
        )
    except ValueError as error:  # more tilings than the frame has
        raise UserError(str(error)) from error


def patch_batch(config: Experiment, weights: Weights, frame: Frame, devices: int, *, images: int = 1) -> int | None:
    """The patches per network call that the config asks for; "auto" prints what it takes and the memory foretold.

    Args:
      config: the experiment.
      weights: of the network.
      frame: of the image.
      devices: that share the patches of an image.
      images: side by side on each device.
    """
    if config.patch_batch != "auto":
        return config.patch_batch or None
    count = -(-frame.patch_count * config.tilings // devices)
    gradient = config.solver.name == "dps"
    size, foretold = choose_patch_batch(
        weights.network, weights.params, frame.patch, count, images=images, gradient=gradient
    )
    print(
        f"patch batch {size} of {count} patches on each device: {foretold / 2**20:.0f} MiB foretold for the network",
        file=sys.stderr,
    )
    return size


def solver_settings(config: SolverConfig, measurement: Measurement) -> Settings:
    """The chosen solver's own settings; the noise level comes from the measurement."""
    if config.name == "dds":
        return DDS(
            consistency=config.consistency,
            cg_steps=config.cg_steps,
            churn=config.churn,
            kappa=config.kappa,
            noise=measurement.noise_sigma,
        )
    if config.name == "dps":
        return DPS(
            zeta=config.zeta or DPS.zeta,
            eps=config.eps,
            step_form=config.step_form,
            last_level_noise=config.last_level_noise,
            zero_ring=config.zero_ring,
        )
    if config.name == "ddnm":
        return DDNM(eps=config.eps, cg_steps=config.pinv_steps, last_level_noise=config.last_level_noise)
    if config.name == "diffpir":
        return DiffPIR(
            weight=config.weight,
            zeta=config.zeta or DiffPIR.zeta,
            cg_steps=config.cg_steps,
            noise=measurement.noise_sigma,
        )
    if config.name == "predictor_corrector":
        return PredictorCorrector(
            snr=config.snr, corrector=config.corrector, zeta=config.zeta or PredictorCorrector.zeta
        )
    if config.name == "daps":
        return DAPS(
            ode_steps=config.ode_steps,
            sampler=config.sampler,
            mcmc_steps=config.mcmc_steps,
            cg_steps=config.cg_steps,
            noise=measurement.noise_sigma,
        )
    return Langevin(zeta=config.zeta or Langevin.zeta, eps=config.eps)


def run_tv(config: Experiment, scene: Scene) -> Array:
    """The image of total variation, [H, W, C]."""
    weight = config.tv.weight or TV_WEIGHTS[config.scan.protocol]
    settings = TV(weight=weight, iterations=config.tv.iterations)
    return total_variation(scene.measurement.sinogram, scene.operator, settings=settings).image


def run_solver(
    config: Experiment, scene: Scene, prior: Prior, tv: Array, *, progress: sampling.Progress | None = None
) -> tuple[Array, np.ndarray, int]:
    """The chosen solver: (image [H, W, C], residual per level, network evaluations).

    Args:
      config: the experiment.
      scene: from `load_scene`.
      prior: from `make_prior`.
      tv: from `run_tv`, where the solver starts from it.
      progress: called with (steps done, steps in all, info).
    """
    result = reconstruct(
        jax.random.fold_in(image_key(config.seed, config.image.index), 1),
        scene.measurement.sinogram,
        scene.operator,
        prior,
        average=config.solver.average,
        progress=progress,
        **_solver_options(config.solver, scene, tv),
    )
    return jax.block_until_ready(result.image), np.asarray(result.residual), result.evaluations


def run_samples(config: Experiment, scene: Scene, prior: Prior, tv: Array) -> Samples:
    """`config.samples` runs of the chosen solver: the chains that `run_solver` would average."""
    return draw_samples(
        jax.random.fold_in(image_key(config.seed, config.image.index), 1),
        scene.measurement.sinogram,
        scene.operator,
        prior,
        config.samples,
        **_solver_options(config.solver, scene, tv),
    )


def _solver_options(config: SolverConfig, scene: Scene, tv: Array) -> dict[str, Any]:
    return {
        "solver": config.name,
        "settings": solver_settings(config, scene.measurement),
        "levels": config.levels,
        "inner": config.inner,
        "sigma_max": config.sigma_max,
        "sigma_min": config.sigma_min,
        "ladder": config.ladder,
        "start": tv if config.start == "tv" else config.start,
    }


def score_mask(scene: Scene) -> np.ndarray | None:
    """The pixels that count for errors in a unit: the head where that is HU, otherwise all."""
    return head_mask(scene.truth, window=scene.window) if scene.window.unit == HOUNSFIELD.unit else None


def score(method: str, image: Array | np.ndarray, scene: Scene, *, evaluations: int = 0, seconds: float = 0.0) -> Row:
    """Metrics of an image [H, W, C], after clipping to [0, 1]."""
    clipped = jnp.clip(jnp.asarray(image), 0, 1)
    return Row(
        method=method,
        psnr=float(psnr(clipped, scene.truth)),
        ssim=float(ssim(clipped, scene.truth)),
        ssim_gaussian=float(ssim_gaussian(clipped, scene.truth)),
        rmse=float(rmse(clipped, scene.truth, mask=score_mask(scene), window=scene.window)),
        residual=float(relative_error(scene.operator(jnp.asarray(image)), scene.measurement.sinogram)),
        evaluations=evaluations,
        seconds=seconds,
    )


def timed(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, float]:
    """(result, seconds), waiting for asynchronous work."""
    begin = time.perf_counter()
    result = jax.block_until_ready(function(*args, **kwargs))
    return result, time.perf_counter() - begin


def missing_default(path: str, default: str, flag: str) -> UserError | None:
    """An error if `path` is the default of a checkout and this is no checkout."""
    if path == default and not Path(path).exists():
        return UserError(
            f"no {default} here: run inside a checkout of padis_jax, or name the file with {flag} (and the settings "
            "with --config)"
        )
    return None
