"""Problems on held-out images with their priors and their starts, for studies of a solver's run: 256 x 256 pixels.

CT is noiseless (the paper's protocol), of slices of the head CT with the prior `head_ct`; the other problems have the
noise of their row in `problems/registry.py`, on crops of photographs of scikit-image with the prior `photos`. A task
follows from problem, image and seed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.benchmark.photos import VALIDATION, photograph, test_crops, training_crops
from padis_jax.errors import UserError
from padis_jax.images import read_images
from padis_jax.keys import root_key
from padis_jax.metrics import psnr
from padis_jax.prior import Prior
from padis_jax.problems.registry import PROBLEMS, measure_image
from padis_jax.solvers.presets import KINDS, Kind, Plan, preset, tv_preset
from padis_jax.solvers.problem import Problem, build_problem
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import total_variation
from padis_jax.split import HEAD_CT, HEAD_CT_TEST
from padis_jax.weights import load_prior
from studies.cells import digest_of

SLICE, PHOTO = "73", VALIDATION[0].split(".")[0]  # the validation images
PHOTO_CROP = 132  # its number among the crops of padis_jax.benchmark.photos


class Task(NamedTuple):
    """What is to be solved, and what the solver begins with.

    Attributes:
      kind: of the preset.
      operator: A.
      y: its measurement.
      noise: standard deviation of the noise of y.
      truth: [H, W, C] in [0, 1].
      start: [H, W, C], the image of total variation.
      prior: of the images.
      key: of the solver.
    """

    kind: Kind
    operator: Any
    y: Array
    noise: float
    truth: np.ndarray
    start: Array
    prior: Prior
    key: Array

    @property
    def problem(self) -> Problem:
        """As steps of a solver see it."""
        return build_problem(self.operator, self.prior.denoise, self.y, self.prior.frame, channels=self.prior.channels)

    def score(self, image: Any) -> float:
        """PSNR of an image, clipped to [0, 1]."""
        return float(psnr(np.clip(np.asarray(image), 0, 1), self.truth))


class Solved(NamedTuple):
    """An image, its PSNR, the residual ||y - A D|| / ||y|| of each level, and the seconds, compilation included."""

    image: np.ndarray
    psnr: float
    residual: list[float]
    seconds: float


def validation(problem: str) -> str:
    """The image that settings of a problem may be chosen on."""
    return SLICE if PROBLEMS[problem].tomography else PHOTO


def tests(problem: str) -> tuple[str, ...]:
    """The four that they are tested on."""
    return tuple(map(str, HEAD_CT_TEST)) if PROBLEMS[problem].tomography else _test_crops()[1]


@functools.lru_cache(maxsize=2)
def task(problem: str, image: str, seed: int) -> Task:
    """A task.

    Args:
      problem: a name of the registry.
      image: of `validation` or `tests`; of CT the number of any slice.
      seed: of the noise and of the solver.

    Raises:
      UserError: for an image that there is not.
    """
    row = PROBLEMS[problem]
    truth = _slice(image) if row.tomography else _crop(image)
    key = jax.random.fold_in(root_key(seed), PHOTO_CROP if not row.tomography else int(image))
    return task_of(problem, truth, key, _prior("head_ct" if row.tomography else "photos", truth.shape[:2]))


def task_of(problem: str, truth: np.ndarray, key: Array, prior: Prior) -> Task:
    """The task of any image [H, W, C] in [0, 1], and any prior of images of its size.

    Args:
      problem: a name of the registry.
      truth: the image.
      key: of the noise and of the solver.
      prior: the prior.
    """
    row = PROBLEMS[problem]
    operator, measurement = measure_image(row, key, jnp.asarray(truth))
    noise = measurement.noise_sigma
    start = total_variation(measurement.y, operator, settings=tv_preset(row.kind), noise_std=noise).image
    solver_key = jax.random.fold_in(key, 1)
    return Task(row.kind, operator, measurement.y, float(noise), truth, start.reshape(truth.shape), prior, solver_key)


def solve(given: Task, plan: Plan, ladder: Sequence[float] | np.ndarray) -> Solved:
    """Solves a task by the plan's method and settings, one step on each of the levels, from total variation.

    A plan whose start is "noise" begins at an image of zeros.
    """
    begin = time.perf_counter()
    key = jax.random.clone(given.key)
    found = reconstruct(
        key,
        given.y,
        given.operator,
        given.prior,
        solver=plan.settings,
        ladder=np.asarray(ladder, np.float32),
        start="noise" if plan.start == "noise" else given.start,
        noise_std=given.noise,
    )
    image = np.asarray(jax.block_until_ready(found.image))
    seconds = time.perf_counter() - begin
    return Solved(image, given.score(image), np.asarray(found.residual).astype(float).tolist(), seconds)


def settings() -> dict[str, Any]:
    """What a run depends on beside the task and its levels: the priors' weights, and the presets."""
    return {
        "weights": {name: digest_of(name) for name in ("head_ct", "photos")},
        "priors": {"mirror": "as trained"},
        "presets": {f"{m} {k}": preset(m, k, 25).described() for m in ("pnp_admm", "dds", "dps") for k in KINDS},
    }


@functools.cache
def _prior(name: str, shape: tuple[int, int]) -> Prior:
    return load_prior(name, image_shape=shape)


@functools.cache
def _test_crops() -> tuple[np.ndarray, tuple[str, ...]]:
    crops, names = test_crops()
    return crops[:4], tuple(name.replace(" ", "_") for name in names[:4])


def _slice(image: str) -> np.ndarray:
    return np.asarray(read_images(HEAD_CT, memory=0).images[[int(image)]][0], np.float32)


def _crop(image: str) -> np.ndarray:
    if image == PHOTO:
        photograph(VALIDATION[0])
        return training_crops()[0][PHOTO_CROP].astype(np.float32) / 255
    crops, names = _test_crops()
    if image not in names:
        raise UserError(f"{image}: no such crop; there are {PHOTO}, {', '.join(names)}")
    return crops[names.index(image)].astype(np.float32) / 255
