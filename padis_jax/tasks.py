"""Named inverse problems: for each the operator, the noise and the simple image that reconstructions are held against.

`TASKS[name].build(image_shape, channels, key)` makes the operator; what is drawn (masks) follows from the key alone.
`simulate` measures an image with it: Gaussian noise for any task, photon counts for tomography. Lengths of tomography
are in pixels, and its detector has twice as many bins, one pixel wide, as the image's longer side has pixels. Blurs are
circular, so that their pseudo-inverse has a closed form. Where the PaDIS paper has the task (arXiv 2406.02462, section
4), geometry and noise are the paper's at 256 x 256 pixels; it does not say what its blurs take for what lies outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.operators import (
    Blur,
    Downsample,
    FanBeam,
    Identity,
    Inpaint,
    Measurement,
    ParallelBeam,
    RayTransform,
    box_mask,
    gaussian_kernel,
    honest_measurement,
    motion_kernel,
    paper_measurement,
    random_mask,
    stroke_mask,
    uniform_kernel,
)

Build = Callable[[tuple[int, int], Array], Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """An inverse problem.

    Attributes:
      description: one line.
      start: what `operator.start` is.
      sigma: standard deviation of the Gaussian noise, in the units of the measurement.
      tomography: whether photons can be counted.
      factory: (image shape, key) -> operator.
    """

    description: str
    start: str
    sigma: float
    tomography: bool
    factory: Build

    def build(self, image_shape: tuple[int, int], channels: int, key: Array) -> Any:
        """The operator, on images [H, W, channels].

        Args:
          image_shape: (H, W).
          channels: 1 or 3; every channel is measured alike, tomography only one.
          key: of what the task draws.

        Raises:
          ValueError: another number of channels, or a size that the task cannot have.
        """
        if channels != 1 and (self.tomography or channels != 3):
            allowed = "1 channel" if self.tomography else "1 or 3 channels"
            raise ValueError(f"task: {self.description}: images must have {allowed}, not {channels}")
        return self.factory(image_shape, key)


def simulate(
    task: Task,
    key: Array,
    image: Array,
    operator: Any,
    *,
    sigma: float | None = None,
    photons: float | None = None,
    pixel_mm: float | None = None,
) -> Measurement:
    """Measures an image.

    Args:
      task: whose noise it is.
      key: of the noise.
      image: [H, W, C] in [0, 1].
      operator: from `task.build`.
      sigma: instead of the task's own.
      photons: per ray, in tomography: Poisson counts of a finer object (`honest_measurement`), no Gaussian noise.
      pixel_mm: side of a pixel in mm, needed with `photons`.

    Raises:
      ValueError: photons without tomography or a pixel size, or together with sigma.
    """
    if photons is None:
        return paper_measurement(key, image, operator, sigma=task.sigma if sigma is None else sigma)
    if not (task.tomography and isinstance(operator, RayTransform)):
        raise ValueError(f"task: photons are counted in tomography only, not in: {task.description}")
    if sigma is not None or pixel_mm is None:
        raise ValueError("task: photons need the pixel size in mm, and bring their own noise: give pixel_mm, not sigma")
    return honest_measurement(key, jnp.asarray(image), operator, photons=photons, pixel_mm=pixel_mm)


def _parallel(views: int, span: float) -> Build:
    def build(shape: tuple[int, int], key: Array) -> Any:
        angles = (np.arange(views) + 0.5) * span / views
        return ParallelBeam(image_shape=shape, angles=angles, detector_count=2 * max(shape))

    return build


def _fan(views: int, span: float) -> Build:
    def build(shape: tuple[int, int], key: Array) -> Any:
        side = max(shape)
        angles = (np.arange(views) + 0.5) * span / views
        return FanBeam(
            image_shape=shape,
            angles=angles,
            detector_count=2 * side,
            source_distance=float(side),
            detector_distance=float(side),
        )

    return build


def _blur(kernel: np.ndarray) -> Build:
    return lambda shape, key: Blur(image_shape=shape, kernel=kernel, boundary="circular")


def _reduce(factor: int, method: Any = "block") -> Build:
    return lambda shape, key: Downsample(image_shape=shape, factor=factor, method=method)


def _box(shape: tuple[int, int], key: Array) -> Any:
    return Inpaint(mask=box_mask(key, shape, size=(shape[0] // 4, shape[1] // 4)))


def _ct(description: str, factory: Build) -> Task:
    return Task(f"CT, {description}", "filtered backprojection (Hann, cut-off 0.9)", 0.0, True, factory)


def _deblur(description: str, kernel: np.ndarray) -> Task:
    return Task(f"deblurring, {description}", "the blurred image", 0.01, False, _blur(kernel))


def _super(description: str, factory: Build) -> Task:
    return Task(f"superresolution, {description}", "every pixel repeated", 0.01, False, factory)


def _inpaint(description: str, factory: Build) -> Task:
    return Task(f"inpainting, {description}", "the nearest known pixel", 0.01, False, factory)


TASKS: dict[str, Task] = {
    "ct8": _ct("parallel beam, 8 views", _parallel(8, np.pi)),
    "ct20": _ct("parallel beam, 20 views", _parallel(20, np.pi)),
    "ct60": _ct("parallel beam, 60 views", _parallel(60, np.pi)),
    "fan180": _ct("fan beam, 180 views over half a turn", _fan(180, np.pi)),
    "limited120": _ct("parallel beam, 60 views over 120 degrees", _parallel(60, 2 * np.pi / 3)),
    "deblur9": _deblur("uniform 9 x 9", uniform_kernel(9)),
    "deblur17": _deblur("uniform 17 x 17", uniform_kernel(17)),
    "deblur_gauss": _deblur("Gaussian, sigma 3 pixels", gaussian_kernel(3.0)),
    "deblur_motion": _deblur("motion, 15 pixels at 30 degrees", motion_kernel(15.0, np.pi / 6)),
    "sr2": _super("means of 2 x 2 pixels", _reduce(2)),
    "sr4": _super("means of 4 x 4 pixels", _reduce(4)),
    "sr8": _super("means of 8 x 8 pixels", _reduce(8)),
    "sr4_bicubic": _super("bicubic, factor 4", _reduce(4, "bicubic")),
    "inpaint_random": _inpaint(
        "30% of the pixels known", lambda shape, key: Inpaint(mask=random_mask(key, shape, known=0.3))
    ),
    "inpaint_box": _inpaint("a box of a quarter of each side missing", _box),
    "inpaint_strokes": _inpaint("eight strokes missing", lambda shape, key: Inpaint(mask=stroke_mask(key, shape))),
    "denoise": Task("denoising", "the noisy image", 0.1, False, lambda shape, key: Identity(image_shape=shape)),
}


def find_task(name: str) -> Task:
    """The task of that name; ValueError with all names if there is none."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def markdown() -> str:
    """The table of docs/problems.md."""
    lines = ["| task | what is measured | noise | start |", "|---|---|---|---|"]
    for name, task in TASKS.items():
        noise = f"Gaussian {task.sigma:g}" if task.sigma else "none"
        lines.append(f"| `{name}` | {task.description} | {noise} | {task.start} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
