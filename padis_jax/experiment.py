"""A simulated CT experiment on a known image: measure it, reconstruct it by several methods, score them.

What sample.py shows and benchmarks/head_ct.py tabulates, as functions of one frozen config.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, ImageSet, Window, read_images
from padis_jax.measured import MeasurementConfig
from padis_jax.metrics import head_mask, psnr, relative_error, rmse, ssim, ssim_gaussian
from padis_jax.operators import ParallelBeam
from padis_jax.operators.measurement import Measurement, honest_measurement, paper_measurement
from padis_jax.operators.tomography import RayTransform
from padis_jax.patches import frame_for
from padis_jax.prior import Prior, patch_prior
from padis_jax.solvers import sampling
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.reconstruct import Settings, reconstruct
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import Weights
from padis_jax.writers import Format

DEFAULT_IMAGE = "data/head_ct.npz"
DEFAULT_WEIGHTS = "weights/head_ct.safetensors"
TV_WEIGHTS = {"honest": 1.0, "paper": 0.003}  # python -m benchmarks.tune --method tv --vary tv.weight ...
SSIM_WINDOW = 11  # pixels: smaller images have no SSIM


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image that is measured.

    Attributes:
      path: DICOM, NIfTI, picture, array, MATLAB or HDF5: a file, a folder or a glob (docs/formats.md).
      index: which image of the file or folder, from 0.
    """

    path: str = DEFAULT_IMAGE
    index: int = 41


@dataclasses.dataclass(frozen=True)
class ScanConfig:
    """The parallel-beam scan that is simulated; angles are (i + 1/2) pi / views.

    Attributes:
      views: number of views over half a turn.
      bins: detector bins, one pixel wide.
      protocol: "honest" (object on a 4x finer grid, bins with a width, photon counts) or "paper" (noiseless, the same
        projector that reconstructs).
      photons: per ray without object; honest protocol only.
      pixel_mm: side of a pixel in mm, for the attenuation; 0 takes it from the image file.
    """

    views: int = 20
    bins: int = 512
    protocol: Literal["honest", "paper"] = "honest"
    photons: float = 1e5
    pixel_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.views < 1 or self.bins < 1:
            raise UserError(f"scan: views {self.views} and bins {self.bins} must be at least 1")
        if self.protocol not in ("honest", "paper"):
            raise UserError(f"scan.protocol is {self.protocol!r}: use 'honest' or 'paper'")
        if not self.photons > 0 or self.pixel_mm < 0:
            raise UserError(f"scan: photons {self.photons} must be positive and pixel_mm {self.pixel_mm} not negative")


@dataclasses.dataclass(frozen=True)
class SolverConfig:
    """The diffusion solver. Fields that a solver does not name are not used by it.

    Attributes:
      name: "dds" (fast: CG data consistency), "dps" (the paper's VE-DPS) or "langevin".
      levels: noise levels of the ladder.
      inner: steps per level.
      sigma_max: first noise level, in image units.
      sigma_min: last noise level.
      ladder: "geometric", or "edm" (rho = 7).
      start: "tv", "operator" (FBP) or "noise" (a zero image); noise of deviation sigma_max is added.
      average: independent chains whose mean is the result; multiplies the cost.
      consistency: dds: lambda relative to ||A||^2.
      cg_steps: dds: conjugate-gradient steps per level.
      churn: dds: share of fresh noise, 0 (deterministic) to 1.
      kappa: dds: error of the denoised image relative to sigma; weighs measurement noise. The noise level itself is
        taken from the photon counts.
      zeta: dps, langevin: data step; 0 takes the solver's own default.
      eps: dps, langevin: alpha = eps sigma^2.
      step_form: dps: "squared", "norm", "paper" or "authors" (solvers/dps.py has the table that converts zeta).
      last_level_noise: dps: whether the lowest level adds noise.
      zero_ring: dps: set D to 0 on the whole margin.
    """

    name: Literal["dds", "dps", "langevin"] = "dds"
    levels: int = 50
    inner: int = 1
    sigma_max: float = 0.2
    sigma_min: float = 0.003
    ladder: Literal["geometric", "edm"] = "geometric"
    start: Literal["tv", "operator", "noise"] = "tv"
    average: int = 2
    consistency: float = 2e-3
    cg_steps: int = 10
    churn: float = 1.0
    kappa: float = 1.0
    zeta: float = 0.0
    eps: float = 0.5
    step_form: Literal["squared", "norm", "paper", "authors"] = "squared"
    last_level_noise: bool = True
    zero_ring: bool = False

    def __post_init__(self) -> None:
        for name in ("levels", "inner", "average"):
            if getattr(self, name) < 1:
                raise UserError(f"solver.{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(f"solver: 0 < sigma_min < sigma_max is needed, got {self.sigma_min} and {self.sigma_max}")


@dataclasses.dataclass(frozen=True)
class TVConfig:
    """Total variation, the classical yardstick.

    Attributes:
      weight: of the total variation; 0 takes the best of ten on the validation slices for the protocol at 20 views:
        1 under the honest protocol (1e5 photons), 0.003 without noise.
      iterations: primal-dual iterations.
    """

    weight: float = 0.0
    iterations: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf or self.iterations < 1:
            raise UserError(f"tv: weight {self.weight} must not be negative, iterations {self.iterations} at least 1")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a reconstruction depends on.

    Attributes:
      weights: weights file from train.py.
      image: what is measured.
      scan: how it is measured.
      measurement: a measured scan instead of `image` and `scan`.
      solver: how it is reconstructed.
      tv: settings of the yardstick.
      seed: root of all randomness.
      patch_batch: patches per network call, to bound memory; 0 for all at once.
      tilings: random tilings averaged per evaluation.
      save_as: formats that the reconstruction is also written in, in the image's unit: dicom (needs a DICOM image,
        whose header is carried over), nifti, png (16 bits), tiff (16 bits), npz.
      new_frame: allow an image of another size than the weights were trained on; the frame is made anew for it and
        positions are rescaled to it.
    """

    weights: str = DEFAULT_WEIGHTS
    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    scan: ScanConfig = dataclasses.field(default_factory=ScanConfig)
    measurement: MeasurementConfig = dataclasses.field(default_factory=MeasurementConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    tv: TVConfig = dataclasses.field(default_factory=TVConfig)
    seed: int = 0
    patch_batch: int = 0
    tilings: int = 1
    save_as: tuple[Format, ...] = ()
    new_frame: bool = False

    def __post_init__(self) -> None:
        if self.patch_batch < 0 or self.tilings < 1:
            raise UserError(
                f"patch_batch {self.patch_batch} must be at least 1, or 0; tilings {self.tilings} at least 1"
            )


class Scene(NamedTuple):
    """A measured image: truth [H, W, C] in [0, 1], its window and name, operator and measurement."""

    truth: np.ndarray
    window: Window
    name: str
    operator: RayTransform
    measurement: Measurement


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
    if config.scan.protocol == "paper":
        measurement = paper_measurement(key, jnp.asarray(truth), operator)
    else:
        pixel_mm = config.scan.pixel_mm or (chosen.spacing[-1] if chosen.spacing else 0.0)
        if not pixel_mm:
            raise UserError(
                f"{config.image.path}: the honest protocol needs the pixel size, which this file does not tell; "
                "give --scan.pixel-mm, or use --scan.protocol paper"
            )
        measurement = honest_measurement(
            key, jnp.asarray(truth), operator, photons=config.scan.photons, pixel_mm=pixel_mm
        )
    return Scene(truth, chosen.window, chosen.names[0], operator, measurement)


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
    try:
        return patch_prior(
            weights.network, weights.params, frame, tilings=config.tilings, patch_batch=config.patch_batch or None
        )
    except ValueError as error:  # more tilings than the frame has
        raise UserError(str(error)) from error


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
    s = config.solver
    result = reconstruct(
        jax.random.fold_in(image_key(config.seed, config.image.index), 1),
        scene.measurement.sinogram,
        scene.operator,
        prior,
        solver=s.name,
        settings=solver_settings(s, scene.measurement),
        levels=s.levels,
        inner=s.inner,
        sigma_max=s.sigma_max,
        sigma_min=s.sigma_min,
        ladder=s.ladder,
        start=tv if s.start == "tv" else s.start,
        average=s.average,
        progress=progress,
    )
    return jax.block_until_ready(result.image), np.asarray(result.residual), result.evaluations


def score(method: str, image: Array | np.ndarray, scene: Scene, *, evaluations: int = 0, seconds: float = 0.0) -> Row:
    """Metrics of an image [H, W, C], after clipping to [0, 1]."""
    clipped = jnp.clip(jnp.asarray(image), 0, 1)
    mask = head_mask(scene.truth, window=scene.window) if scene.window.unit == HOUNSFIELD.unit else None
    return Row(
        method=method,
        psnr=float(psnr(clipped, scene.truth)),
        ssim=float(ssim(clipped, scene.truth)),
        ssim_gaussian=float(ssim_gaussian(clipped, scene.truth)),
        rmse=float(rmse(clipped, scene.truth, mask=mask, window=scene.window)),
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
