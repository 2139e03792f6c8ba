"""A case: what is to be reconstructed, whether it was simulated or measured; with the truth or without."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.fields import check_length
from padis_jax.images import ImageSet, Window
from padis_jax.images.source import Spacing
from padis_jax.keys import root_key
from padis_jax.measurements.load import MeasuredScan
from padis_jax.measurements.scaled import Start, pixel_of, scaled_scan, scaled_values, start_of
from padis_jax.measurements.simulate import Measurement
from padis_jax.operators import Masking
from padis_jax.operators.tomography import RayTransform, ray_transform
from padis_jax.operators.weighting import weigh
from padis_jax.prior import Prior
from padis_jax.problems.registry import NamedProblem, measure_image, parallel_scan
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import problem_of
from padis_jax.solvers.checks import check_numbers
from padis_jax.solvers.presets import Kind, kind_of
from padis_jax.solvers.problem import as_pytree
from padis_jax.solvers.tv import TV
from padis_jax.weights import Weights

SSIM_WINDOW = 11  # pixels: smaller images have no SSIM


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What is to be reconstructed.

    Attributes:
      operator: A.
      measurement: y with its noise.
      window: what 0 and 1 stand for.
      source: the one image that a result is of, with its name, its spacing and its file's header.
      problem: the problem; its kind decides the presets.
      truth: [H, W, C] in [0, 1], or None: nothing is scored then.
      prior: the denoiser, once it is built (prior.with_prior).
      weighted: whether methods weigh the entries of the measurement by the variance of their noise.
      about: what else metrics.json says.
      note: what the report says of the measurement.
    """

    operator: Any
    measurement: Measurement
    window: Window
    source: ImageSet
    problem: NamedProblem
    truth: np.ndarray | None = None
    prior: Prior | None = None
    weighted: bool = False
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        """Of the image."""
        return self.source.names[0]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return tuple(self.source.images.shape[1:])

    @property
    def kind(self) -> Kind:
        """The kind of preset."""
        return kind_of(self.problem.kind, counts=self.measurement.protocol != "paper")

    @property
    def noise_std(self) -> Array:
        """The noise of the measurement as methods are told: one number, or one for each entry."""
        return self.measurement.noise if self.weighted else self.measurement.noise_sigma

    @property
    def evenness(self) -> float:
        """Of the noise that methods are told (`Measurement.evenness`)."""
        return self.measurement.evenness if self.noise_std.ndim else 1.0

    @property
    def share(self) -> float:
        """What becomes of rho relative to ||A||^2 when rho / s^2 is kept: evenness ||A||^2 / ||W^(1/2) A||^2.

        While tracing it is 1.
        """
        if not self.noise_std.ndim or isinstance(self.noise_std, jax.core.Tracer):
            return 1.0
        operator = as_pytree(self.operator)
        found, *_ = weigh(operator, self.measurement.y, self.noise_std, self.image_shape)
        return self.evenness * float(operator.norm / found.norm) ** 2

    @property
    def origin(self) -> Literal["upper", "lower"]:
        """Where row 0 of the image is drawn."""
        return "lower" if self.source.rows_up else "upper"

    @property
    def ties(self) -> dict[str, Any]:
        """What `reconstruct` is told beside the plan: of an image, nothing."""
        return {}

    @property
    def views_axis(self) -> int:
        """The axis of a scan's measurement that its views lie along."""
        return 0

    def smoothed_by(self, settings: TV) -> TV:
        """The settings of total variation for this image."""
        return settings

    def planes(self, image: Any) -> Any:
        """The images [n, H, W, C] that are scored by their structure: the image itself."""
        return image[None]

    @property
    def simple(self) -> dict[str, Array]:
        """What was measured, in a word -> image [H, W, C], where that is worth a picture beside `operator.start`."""
        return {"masked": self.measurement.y} if isinstance(self.operator, Masking) else {}


def image_key(seed: int, index: int | Array) -> Array:
    """The key of one image: independent of the batch that it is computed in. UserError beyond 32 bits."""
    if isinstance(index, int) and not 0 <= index < 2**32:  # an array under vmap is of batch items, counted here
        raise UserError(f"--image.index {index}: images are counted from 0")
    return jax.random.fold_in(root_key(seed), index)


def simulated_case(
    config: Experiment,
    images: ImageSet,
    *,
    key: Array | None = None,
    operator: Any = None,
) -> Case:
    """The chosen image, measured by the problem or the scan that the config names.

    Args:
      config: of the run.
      images: those of `config.image.path`.
      key: of what is random in the measurement; None for the image's own.
      operator: if it is there already; else it is built.

    Raises:
      UserError: for a missing image or mask, a size that the problem cannot have, or a pixel size that neither the file
        nor the config has.
    """
    chosen = images.select([config.image.number])
    truth = np.asarray(chosen.images[0])
    height, width = truth.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(
            f"{config.image.path}: {(height, width)} pixels; at least {SSIM_WINDOW} x {SSIM_WINDOW} are needed"
        )
    problem = simulated_problem(config, (height, width), rows_up=chosen.rows_up)
    noise: dict[str, Any] = {"sigma": config.noise}
    if problem.tomography and config.scan.protocol == "honest":
        noise = {"photons": config.scan.photons, "pixel_mm": _pixel_mm(config, chosen), "window": chosen.window}
    key = image_key(config.seed, config.image.number) if key is None else key
    try:
        if operator is None:
            operator = problem.build((height, width), truth.shape[-1], jax.random.fold_in(key, 2))
            if problem.tomography and not config.scan.pixel_mm and chosen.spacing:
                operator = _stretched(operator, chosen.spacing)
        operator, measurement = measure_image(problem, key, jnp.asarray(truth), operator=operator, **noise)
    except ValueError as error:
        flag = f"--problem {config.problem}: " if config.problem else ""
        raise UserError(f"{config.image.path}: {flag}{error}") from error
    about = {"problem": config.problem, "measured": problem.description} if config.problem else {}
    weighted = config.weighted
    return Case(operator, measurement, chosen.window, chosen, problem, truth, weighted=weighted, about=about)


def _stretched(scan: RayTransform, spacing: Spacing) -> RayTransform:
    """The scan of pixels that are not square where `spacing` says so, their longer side being as long as before.

    Raises:
      ValueError: if one side is more than 100 times the other.
    """
    aspect = spacing[1] / spacing[2]
    if not 0.01 <= aspect <= 100:
        raise ValueError(
            f"its pixels are {spacing[1]:g} mm high and {spacing[2]:g} mm wide; correct the file's spacing, or give "
            "--scan.pixel-mm for square ones"
        )
    if math.isclose(aspect, 1, rel_tol=1e-3):
        return scan
    width = scan.geometry.pixel_size / max(1, aspect)
    return ray_transform(dataclasses.replace(scan.geometry, pixel_size=width, pixel_aspect=aspect))


def _pixel_mm(config: Experiment, chosen: ImageSet) -> float:
    pixel_mm = config.scan.pixel_mm or (chosen.spacing[-1] if chosen.spacing else 0.0)
    if not pixel_mm:
        raise UserError(
            f"{config.image.path}: the honest protocol needs the pixel size, which this file does not have; "
            "give --scan.pixel-mm, or use --scan.protocol paper"
        )
    check_length(f"{config.image.path}: the pixel size", pixel_mm, 1e-9)
    return float(pixel_mm)


def measured_case(config: Experiment, scan: MeasuredScan, weights: Weights, *, operator: Any = None) -> Case:
    """A measured scan, scaled to the images of the weights.

    Args:
      config: of the run.
      scan: from `load_scan`.
      weights: of the prior.
      operator: from an earlier case of the same geometry.

    Raises:
      UserError: for weights in colour, an image that reaches beyond the source, and an attenuation that cannot be
        estimated.
    """
    grey_only(config.weights, weights)
    shape, path = weights.frame.image_shape, config.measurement.path
    told = scan if config.weighted else scan._replace(relative_std=None)
    scaled = scaled_scan(config.measurement, told, weights.window, shape, operator=operator)
    found = scaled.measurement
    # A result is of one image that comes from no image file, named by the measurement and its digest.
    name = f"{Path(path).name} {hashlib.sha256(scan.sinogram.tobytes()).hexdigest()[:16]}"
    blank = np.zeros((1, *shape, 1), np.float32)
    source = ImageSet(blank, (name,), weights.window, spacing=(scaled.pixel_mm,) * 3)
    views, bins = scan.sinogram.shape
    problem = measured_problem(views, bins)
    about = {
        "measurement": path,
        "repaired_counts": scan.repaired,
        "pixel_mm": scaled.pixel_mm,
        "attenuation_per_mm": [scaled.attenuation.low, scaled.attenuation.high],
    }
    measurement = found._replace(y=found.y[..., None], noise_std=found.noise_std[..., None])
    note = f"{views} views of {bins} bins, {scan.repaired} repaired counts."
    return Case(
        scaled.operator, measurement, weights.window, source, problem, weighted=config.weighted, about=about, note=note
    )


def check_measured(config: Experiment, scan: MeasuredScan, weights: Weights, start: Start | None = None) -> None:
    """Refuses what `measured_case` and the solvers refuse of a scan's values, of which a trace has none.

    Args:
      config: of the run.
      scan: from `load_scan`.
      weights: of the prior.
      start: of `start_of`, for several scans of one geometry.

    Raises:
      UserError: for an attenuation that cannot be estimated, and numbers that no method takes.
    """
    shape, named = weights.frame.image_shape, config.measurement
    start = start or start_of(scan.geometry, shape, pixel_of(named, scan.geometry, shape))
    told = scan if config.weighted else scan._replace(relative_std=None)
    sinogram, noise = scaled_values(named, told, weights.window, shape, start)
    check_numbers(f"{named.path}: its sinogram", sinogram)
    check_numbers(f"{named.path}: its noise", noise)


def simulated_problem(config: Experiment, image_shape: tuple[int, int], *, rows_up: bool = False) -> NamedProblem:
    """The problem or the scan that the config names, for images (H, W); UserError as `problem_of`."""
    if config.problem:
        return problem_of(config, image_shape, rows_up=rows_up)
    return parallel_scan(config.scan.views, config.scan.bins)


def measured_problem(views: int, bins: int) -> NamedProblem:
    """Of a measured scan."""
    return dataclasses.replace(parallel_scan(views, bins), description=f"{views} measured views")


def grey_only(path: str, weights: Weights) -> None:
    """Raises UserError for weights in colour: sinograms are grey."""
    if weights.network.image_channels != 1:
        raise UserError(f"{path}: made for {weights.network.image_channels} channels, but sinograms are grey")


def checked_case(what: str, case: Case) -> Case:
    """The case; UserError for numbers that no method takes, which would end a job and not the item alone."""
    check_numbers(f"{what}: its {'sinogram' if case.problem.tomography else 'measurement'}", case.measurement.y)
    return case
