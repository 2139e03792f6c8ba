"""Named inverse problems: for each the operator, the noise and the simple image that reconstructions are held against.

`PROBLEMS[name].build(image_shape, channels, key)` makes the operator; what is drawn (masks) follows from the key alone.
`simulate` measures an image with it: Gaussian noise for any problem, photon counts for tomography. Lengths of
tomography are in pixels, and its detector has twice as many bins, one pixel wide, as the image's longer side has
pixels. Blurs are circular, so that their pseudo-inverse has a closed form. Where the PaDIS paper has the problem (arXiv
2406.02462, section 4), geometry and noise are the paper's at 256 x 256 pixels; it does not say what its blurs take for
what lies outside.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.simulate import Measurement, honest_measurement, paper_measurement
from padis_jax.operators import (
    Blur,
    Downsample,
    FanBeam,
    Identity,
    Inpaint,
    ParallelBeam,
    RayTransform,
    box_mask,
    free_form_mask,
    gaussian_kernel,
    motion_kernel,
    random_mask,
    stroke_mask,
    uniform_kernel,
)
from padis_jax.operators.blur import Boundary
from padis_jax.operators.resample import Method
from padis_jax.window import HOUNSFIELD, Window

Build = functools.partial[Any]  # of a function of this module, (image shape, key, *, parameters) -> operator
FEW_VIEWS = 8  # of half a turn, at most, that make tomography of few views
Kind = Literal["ct", "few", "small", "large", "noise"]  # by which settings are chosen (solvers/presets.py)


@dataclasses.dataclass(frozen=True)
class NamedProblem:
    """An inverse problem.

    Attributes:
      description: one line.
      start: what `operator.start` is.
      label: the same in a word, for tables and pictures.
      kind: tomography, tomography of few views or a missing angle, small gaps to fill, large ones, noise alone.
      sigma: standard deviation of the Gaussian noise, in the units of the measurement.
      factory: (image shape, key) -> operator; a partial function, so that `definition` can tell its parameters.
    """

    description: str
    start: str
    label: str
    kind: Kind
    sigma: float
    factory: Build

    @property
    def tomography(self) -> bool:
        """Whether photons can be counted."""
        return self.kind in ("ct", "few")

    @property
    def definition(self) -> dict[str, Any]:
        """The operator's function and parameters as JSON holds them: equal for equal operators only."""
        parameters = {name: _plain(value) for name, value in self.factory.keywords.items()}
        return {"operator": self.factory.func.__name__.removeprefix("_"), **parameters}

    def build(self, image_shape: tuple[int, int], channels: int, key: Array) -> Any:
        """The operator, on images [H, W, channels].

        Args:
          image_shape: (H, W).
          channels: 1 or 3; every channel is measured alike, tomography only one.
          key: of what the problem draws.

        Raises:
          ValueError: another number of channels, or a size that the problem cannot have.
        """
        if channels != 1 and (self.tomography or channels != 3):
            allowed = "1 channel" if self.tomography else "1 or 3 channels"
            raise ValueError(f"problem: {self.description}: images must have {allowed}, not {channels}")
        return self.factory(image_shape, key)


def simulate(
    problem: NamedProblem,
    key: Array,
    image: Array,
    operator: Any,
    *,
    sigma: float | None = None,
    photons: float | None = None,
    pixel_mm: float | None = None,
    window: Window = HOUNSFIELD,
) -> Measurement:
    """Measures an image.

    Args:
      problem: whose noise it is.
      key: of the noise.
      image: [H, W, C] in [0, 1].
      operator: from `problem.build`.
      sigma: instead of the problem's own.
      photons: per ray, in tomography: Poisson counts of a finer object (`honest_measurement`), no Gaussian noise.
      pixel_mm: side of a pixel in mm, needed with `photons`.
      window: which values 0 and 1 stand for, to the photons; if not in HU, for air and twice the attenuation of water.

    Raises:
      ValueError: photons without tomography or a pixel size, or together with sigma.
    """
    if photons is None:
        return paper_measurement(key, image, operator, sigma=problem.sigma if sigma is None else sigma)
    if not (problem.tomography and isinstance(operator, RayTransform)):
        raise ValueError(f"problem: photons are counted in tomography only, not in: {problem.description}")
    if sigma is not None or pixel_mm is None:
        raise ValueError(
            "problem: photon counts have their own noise, and need the pixel size: give pixel_mm, not sigma"
        )
    attenuation, background = linear_attenuation(window)
    return honest_measurement(
        key,
        jnp.asarray(image),
        operator,
        photons=photons,
        pixel_mm=pixel_mm,
        attenuation=attenuation,
        background=background,
    )


def measure_image(
    problem: NamedProblem, key: Array, image: Array, *, operator: Any = None, **noise: Any
) -> tuple[Any, Measurement]:
    """The operator of an image [H, W, C] and its measurement, from the image's key.

    Args:
      problem: which.
      key: of the image; what the problem draws and the noise have keys below it.
      image: in [0, 1].
      operator: if it is there already; else it is built.
      **noise: of `simulate`.

    Raises:
      ValueError: for what `build` or `simulate` refuse.
    """
    height, width, channels = image.shape
    if operator is None:
        operator = problem.build((height, width), channels, jax.random.fold_in(key, 2))
    return operator, simulate(problem, jax.random.fold_in(key, 0), image, operator, **noise)


def _plain(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, Array)):
        return value
    # As float32, in which operators compute: another machine's exponential may differ in the last bit of a float64.
    array = np.ascontiguousarray(value, "<f4")
    return f"{'x'.join(map(str, array.shape))} SHA-256 {hashlib.sha256(array.tobytes()).hexdigest()}"


def _parallel(shape: tuple[int, int], key: Array, *, views: int, span: float) -> Any:
    return _scan(shape, key, views=views, span=span, bins=2 * max(shape))


def _scan(shape: tuple[int, int], key: Array, *, views: int, span: float, bins: int) -> Any:
    angles = (np.arange(views) + 0.5) * span / views
    return ParallelBeam(image_shape=shape, angles=angles, detector_count=bins)


def _fan(shape: tuple[int, int], key: Array, *, views: int, span: float) -> Any:
    side = max(shape)
    angles = (np.arange(views) + 0.5) * span / views
    return FanBeam(
        image_shape=shape,
        angles=angles,
        detector_count=2 * side,
        source_distance=float(side),
        detector_distance=float(side),
    )


def _blur(shape: tuple[int, int], key: Array, *, kernel: np.ndarray, boundary: Boundary) -> Any:
    return Blur(image_shape=shape, kernel=kernel, boundary=boundary)


def _downsample(shape: tuple[int, int], key: Array, *, factor: int, method: Method) -> Any:
    return Downsample(image_shape=shape, factor=factor, method=method)


def _pixels(shape: tuple[int, int], key: Array, *, known: float) -> Any:
    return Inpaint(mask=random_mask(key, shape, known=known))


def _box(shape: tuple[int, int], key: Array, *, part: int) -> Any:
    return Inpaint(mask=box_mask(key, shape, size=(shape[0] // part, shape[1] // part)))


def _strokes(shape: tuple[int, int], key: Array, *, strokes: int) -> Any:
    return Inpaint(mask=stroke_mask(key, shape, strokes=strokes))


def _free_form(shape: tuple[int, int], key: Array, *, missing: float) -> Any:
    return Inpaint(mask=free_form_mask(key, shape, missing=missing))


def _given(shape: tuple[int, int], key: Array, *, mask: np.ndarray | Array) -> Any:
    return Inpaint(mask=mask)


def _identity(shape: tuple[int, int], key: Array) -> Any:
    return Identity(image_shape=shape)


def _ct(description: str, factory: Build, kind: Kind = "ct") -> NamedProblem:
    return NamedProblem(f"CT, {description}", "filtered backprojection (Hann, cut-off 0.9)", "FBP", kind, 0.0, factory)


def _deblur(description: str, kernel: np.ndarray, boundary: Boundary = "circular") -> NamedProblem:
    factory = functools.partial(_blur, kernel=kernel, boundary=boundary)
    return NamedProblem(f"deblurring, {description}", "the blurred image", "blurred", "small", 0.01, factory)


def _super(description: str, factor: int, method: Method = "block") -> NamedProblem:
    factory = functools.partial(_downsample, factor=factor, method=method)
    kind: Kind = "large" if factor > 4 else "small"
    return NamedProblem(f"superresolution, {description}", "every pixel repeated", "nearest", kind, 0.01, factory)


def _inpaint(description: str, kind: Kind, factory: Build) -> NamedProblem:
    return NamedProblem(f"inpainting, {description}", "the nearest known pixel", "nearest known", kind, 0.01, factory)


def parallel_scan(views: int, bins: int) -> NamedProblem:
    """A parallel-beam scan over half a turn; bins are one pixel wide."""
    factory = functools.partial(_scan, views=views, span=np.pi, bins=bins)
    return _ct(f"parallel beam, {views} views", factory, "few" if views <= FEW_VIEWS else "ct")


def masked_problem(mask: np.ndarray | Array) -> NamedProblem:
    """Inpainting with a given mask, [H, W], True where known."""
    return _inpaint("a given mask", "large", functools.partial(_given, mask=mask))


def blurred_problem(kernel: np.ndarray | Array, boundary: Boundary = "circular") -> NamedProblem:
    """Deblurring with a given kernel, [h, w]."""
    return _deblur(f"a given kernel, boundary {boundary}", np.asarray(kernel), boundary)


PROBLEMS: dict[str, NamedProblem] = {
    "ct8": _ct("parallel beam, 8 views", functools.partial(_parallel, views=8, span=np.pi), "few"),
    "ct20": _ct("parallel beam, 20 views", functools.partial(_parallel, views=20, span=np.pi)),
    "ct60": _ct("parallel beam, 60 views", functools.partial(_parallel, views=60, span=np.pi)),
    "fan180": _ct("fan beam, 180 views over half a turn", functools.partial(_fan, views=180, span=np.pi)),
    "limited120": _ct(
        "parallel beam, 60 views over 120 degrees", functools.partial(_parallel, views=60, span=2 * np.pi / 3), "few"
    ),
    "deblur9": _deblur("uniform 9 x 9", uniform_kernel(9)),
    "deblur17": _deblur("uniform 17 x 17", uniform_kernel(17)),
    "deblur_gauss": _deblur("Gaussian, sigma 3 pixels", gaussian_kernel(3.0)),
    "deblur_motion": _deblur("motion, 15 pixels at 30 degrees", motion_kernel(15.0, np.pi / 6)),
    "sr2": _super("means of 2 x 2 pixels", 2),
    "sr4": _super("means of 4 x 4 pixels", 4),
    "sr8": _super("means of 8 x 8 pixels", 8),
    "sr4_bicubic": _super("bicubic, factor 4", 4, "bicubic"),
    "inpaint_random": _inpaint("30% of the pixels known", "small", functools.partial(_pixels, known=0.3)),
    "inpaint_box": _inpaint("a box of a quarter of each side missing", "large", functools.partial(_box, part=4)),
    "inpaint_strokes": _inpaint("eight strokes missing", "large", functools.partial(_strokes, strokes=8)),
    **{
        f"inpaint_free{percent}": _inpaint(
            f"free-form gaps of {percent}%", "large", functools.partial(_free_form, missing=percent / 100)
        )
        for percent in (10, 25, 50)
    },
    "denoise": NamedProblem("denoising", "the noisy image", "noisy", "noise", 0.1, functools.partial(_identity)),
}


def markdown() -> str:
    """The table of docs/problems.md."""
    lines = ["| problem | what is measured | noise | start |", "|---|---|---|---|"]
    for name, problem in PROBLEMS.items():
        noise = f"Gaussian {problem.sigma:g}" if problem.sigma else "none"
        lines.append(f"| `{name}` | {problem.description} | {noise} | {problem.start} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
