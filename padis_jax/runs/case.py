"""A measured image: read, measured under a protocol, with what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.errors import UserError
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import task_of
from padis_jax.images import ImageSet, Window, read_images
from padis_jax.operators import Masking, ParallelBeam
from padis_jax.measurements.simulate import Measurement, honest_measurement, paper_measurement
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.operators.tomography import RayTransform
from padis_jax.problems.registry import Task, pose

SSIM_WINDOW = 11  # pixels: smaller images have no SSIM


class Scene(NamedTuple):
    """A measured image: truth [H, W, C] in [0, 1], its window and name, operator and measurement.

    `rows_up` says that row 0 is the bottom of the picture, `task` which named problem it is, if it is one.
    """

    truth: np.ndarray
    window: Window
    name: str
    operator: Any
    measurement: Measurement
    rows_up: bool = False
    task: Task | None = None

    @property
    def simple(self) -> dict[str, Array | np.ndarray]:
        """What was measured, in a word -> image [H, W, C], where that is worth a picture beside `operator.start`."""
        return {"masked": self.measurement.y} if isinstance(self.operator, Masking) else {}

    @property
    def start_name(self) -> str:
        """What `operator.start` is, in a word."""
        return self.task.label if self.task else "FBP"

    @property
    def what(self) -> str:
        """What the image is reconstructed from, in a few words."""
        return self.task.description if self.task else f"{self.operator.measurement_shape[0]} views"


def image_key(seed: int, index: int) -> Array:
    """The key of one image: independent of the batch that it is computed in."""
    return jax.random.fold_in(jax.random.key(seed), index)


def load_scene(
    config: Experiment, images: ImageSet | None = None, *, key: Array | None = None, operator: Any = None
) -> Scene:
    """Reads the image and measures it.

    Args:
      config: the experiment.
      images: the images of `config.image.path`, if they are read already.
      key: of what is random in the measurement; None for the image's own.
      operator: if it is there already; else it is built.

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
    key = image_key(config.seed, config.image.index) if key is None else key
    if config.problem:
        return _problem_scene(config, chosen, key, operator)
    if operator is None:
        angles = (np.arange(config.scan.views) + 0.5) * np.pi / config.scan.views
        operator = ParallelBeam(image_shape=truth.shape[:2], angles=angles, detector_count=config.scan.bins)
    measurement = _measure(config, jax.random.fold_in(key, 0), chosen, operator)
    return Scene(truth, chosen.window, chosen.names[0], operator, measurement, chosen.rows_up)


def _problem_scene(config: Experiment, chosen: ImageSet, key: Array, operator: Any) -> Scene:
    truth = np.asarray(chosen.images[0])
    task = task_of(config, (truth.shape[0], truth.shape[1]), rows_up=chosen.rows_up)
    noise: dict[str, Any] = {"sigma": config.noise}
    if task.tomography and config.scan.protocol == "honest":
        noise = {"photons": config.scan.photons, "pixel_mm": _pixel_mm(config, chosen), "window": chosen.window}
    try:
        operator, measurement = pose(task, key, jnp.asarray(truth), operator=operator, **noise)
    except ValueError as error:
        raise UserError(f"{config.image.path}: --problem {config.problem}: {error}") from error
    return Scene(truth, chosen.window, chosen.names[0], operator, measurement, chosen.rows_up, task)


def _measure(config: Experiment, key: Array, chosen: ImageSet, operator: RayTransform) -> Measurement:
    """The measurement of the first image of a set, under the config's protocol.

    Raises:
      UserError: if the pixel size is needed and neither in the file nor in the config.
    """
    truth = jnp.asarray(chosen.images[0])
    if config.scan.protocol == "paper":
        return paper_measurement(key, truth, operator)
    pixel_mm = _pixel_mm(config, chosen)
    attenuation, background = linear_attenuation(chosen.window)
    return honest_measurement(
        key,
        truth,
        operator,
        photons=config.scan.photons,
        pixel_mm=pixel_mm,
        attenuation=attenuation,
        background=background,
    )


def _pixel_mm(config: Experiment, chosen: ImageSet) -> float:
    pixel_mm = config.scan.pixel_mm or (chosen.spacing[-1] if chosen.spacing else 0.0)
    if not pixel_mm:
        raise UserError(
            f"{config.image.path}: the honest protocol needs the pixel size, which this file does not tell; "
            "give --scan.pixel-mm, or use --scan.protocol paper"
        )
    return float(pixel_mm)


def missing_default(path: str, default: str, flag: str) -> UserError | None:
    """An error if `path` is the default of a checkout and this is no checkout."""
    if path == default and not Path(path).exists():
        return UserError(
            f"no {default} here: run inside a checkout of padis_jax, or name the file with {flag} (and the settings "
            "with --config)"
        )
    return None
