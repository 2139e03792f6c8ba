"""Joins operator, prior and solver: y -> image.

    x_0 = pad(start) + sigma_max z,    x_{t+1} = step(x_t) along the ladder,    image = crop(x_T)

Operator, measurement, prior and the real-valued settings are arguments of the compiled loop: calling again with other
data, another seed or another step size compiles nothing.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.errors import UserError
from padis_jax.fields import check_count, single
from padis_jax.keys import root_key
from padis_jax.prior import Prior
from padis_jax.solvers import sampling
from padis_jax.solvers.chain import begin
from padis_jax.solvers.checks import as_arrays, check_prior, checked, checked_noise
from padis_jax.solvers.ladder import sigmas_of
from padis_jax.solvers.problem import Problem, as_pytree, build_problem
from padis_jax.solvers.registry import Method, Settings, find_method, name_of
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.solvers.volumes import Along, VolumeProblem, build_volume_problem
from padis_jax.volume_prior import VolumePrior


class Reconstruction(NamedTuple):
    """What `reconstruct` returns.

    Attributes:
      image: [H, W, C], in the prior's image units, not clipped; of a prior of volumes [D, H, W].
      residual: [levels], ||y - A D|| / ||y|| in the last step of each level (mean over chains), not weighted, whatever
        the noise. D is the denoised image; of plug-and-play its result so far, of RED-diff mu before the step.
      sigmas: [levels], the ladder.
      evaluations: network evaluations of the whole image.
    """

    image: Array
    residual: Array
    sigmas: Array
    evaluations: int


def reconstruct(
    key: Array | int,
    measurement: ArrayLike,
    operator: Any,
    prior: Prior | VolumePrior,
    *,
    solver: str | Settings = "dds",
    settings: Settings | None = None,
    levels: int = 100,
    inner: int = 1,
    sigma_max: float | None = None,
    sigma_min: float | None = None,
    ladder: Literal["geometric", "edm"] | Sequence[float] | np.ndarray = "geometric",
    start: Literal["noise", "operator", "tv"] | TV | ArrayLike = "noise",
    start_noise: bool = True,
    noise_std: ArrayLike | None = None,
    average: int = 1,
    first_chain: int | Array = 0,
    along: Along | None = None,
    chunk: int | None = None,
    progress: sampling.Progress | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> Reconstruction:
    """Reconstructs an image from a measurement.

    >>> import jax.numpy as jnp, padis_jax as pj
    >>> from padis_jax.patches import frame_for
    >>> from padis_jax.prior import Prior
    >>> prior = Prior(lambda key, plane, sigma: plane / (1 + sigma**2), frame_for((8, 8), 4))  # of white images
    >>> half = pj.from_functions(lambda x: x / 2, image_shape=(8, 8, 1))
    >>> result = pj.reconstruct(0, jnp.full((8, 8, 1), 0.3), half, prior, solver=pj.DDS(cg_steps=3), levels=20)
    >>> result.image.shape, bool(abs(result.image - 0.6).max() < 0.05)
    ((8, 8, 1), True)

    Args:
      key: root key of this image, or an int for jax.random.key(int); chain i draws from fold_in(key, i). For several
        images use fold_in(root, index).
      measurement: y, in the operator's units.
      operator: any callable with `.T` (its adjoint) and `.norm` (its largest singular value), taking images [H, W, C]
        or, with one channel, [H, W]; volumes [D, H, W] with a prior of volumes. A pytree of arrays is an argument of
        the compiled code; anything else is known by its identity and must not be changed after its first use.
      prior: whole-image denoiser and frame, or those of volumes (`slab_prior`), which are solved as a whole.
      solver: the method: its settings, such as `DDS(...)` or `DPS(zeta=1.7)`, or its name in `registry.METHODS` for
        the defaults.
      settings: deprecated; give the settings as `solver`.
      levels: noise levels; iterations of plug-and-play, which stays at one level if its settings name one.
      inner: steps per level.
      sigma_max: first noise level, in image units; None for the method's own in the registry.
      sigma_min: last noise level, likewise.
      ladder: spacing: "geometric", or "edm" for rho = 7; or the noise levels themselves, positive and descending, which
        stand instead of `levels`, `sigma_max` and `sigma_min`.
      start: "noise" for a zero image; "operator" for A.start(y) clipped to [0, 1]; "tv" or `TV(...)` for the image of
        total variation; or an image [H, W] or [H, W, C], or a volume.
      start_noise: whether noise of deviation sigma_max is added to the start; never in plug-and-play.
      noise_std: standard deviation of the noise of y, in its units: one number, or one for each entry, by which the
        solver and the start "tv" weigh the entries (operators/weighting.py). Of a complex y it is that of the whole
        number, E|n|^2 = noise_std^2. Methods that have a setting `noise`, the deviation of a real number, take it from
        here, and it must be 0 there. 0 for no noise; entries that are not measured (`operator.measured`)
        weigh 0. Where all measured entries have the same, the image is bit for bit that of one number; so it is, but
        for rounding, where the values are traced, in which zeros beside positive values count as not measured.
      average: independent chains, whose mean is returned. The mean of many chains has half the squared error of one.
      first_chain: the number of the first of them.
      along: of volumes, what ties their slices beside the prior (`solvers.volumes.Along`); None for nothing.
      chunk: steps between calls of `progress`; changes no result. None: fifty chunks if there is a progress, else one.
      progress: called with (steps done, steps in all, info of the last step).
      on_memory: called with the memory of the compiled loop before it runs.

    Returns:
      A `Reconstruction`.

    Raises:
      ValueError: if shapes do not fit, numbers are not finite, or a setting is unknown or out of range.
    """
    check_count("average", average)
    if not isinstance(first_chain, jax.Array):
        check_count("first_chain", first_chain, 0)
    check_prior(prior)
    method, settings = method_and_settings(solver, settings)
    if method.begin is not None and average > 1:
        raise ValueError(f"average is {average}, but runs of {method.label} {method.alone}: use 1")
    sigmas = sigmas_of(ladder, levels, inner, sigma_max, sigma_min, method)
    key = root_key(key)
    settings, problem, image = posed(measurement, operator, prior, settings, start, noise_std, along)
    steps = sampling.noises(sigmas, inner)
    total = average * len(sigmas) * inner
    images, residuals = [], []
    for number in range(average):
        start_key, run_key = keys_of_chain(key, first_chain + number, method)
        chain = begin(start_key, settings, problem, image, steps, start_noise)
        x, info = sampling.run(
            run_key,
            chain.step,
            chain.state,
            chain.noises,
            owned=start_noise and method.begin is None,
            chunk=chunk,
            progress=None if progress is None else sampling.shifted(progress, number * len(sigmas) * inner, total),
            on_memory=on_memory if number == 0 else None,
        )
        images.append(chain.image(x))
        residuals.append(of_levels(info.residual, inner))
    return Reconstruction(
        image=sum(images[1:], images[0]) / average,
        residual=sum(residuals[1:], residuals[0]) / average,
        sigmas=chain.noises.sigma[::inner],
        evaluations=total * method.evaluations(settings) * prior.tilings,
    )


def posed(
    measurement: ArrayLike,
    operator: Any,
    prior: Prior | VolumePrior,
    settings: Settings,
    start: Any,
    noise_std: ArrayLike | None = None,
    along: Along | None = None,
) -> tuple[Settings, Problem, Array]:
    """(settings as arrays, the problem, the image to start from), with the noise told; arguments of `reconstruct`."""
    if noise_std is not None:
        _refuse_second(settings)
    settings = as_arrays(settings)
    problem = problem_of(operator, prior, measurement, along, name_of(settings))
    noise_std = checked_noise(noise_std, problem.measurement.shape, operator)
    image = start_image(start, problem, operator, prior.channels, noise_std)
    if noise_std is not None:
        settings, problem = _told(settings, problem, noise_std)
    return settings, problem, image


def keys_of_chain(key: Array, number: int | Array, method: Method) -> tuple[Array | None, Array]:
    """(of the noise at the start, of the steps); a method whose state holds no noise has a single chain."""
    if method.begin is not None:
        return None, key
    start_key, run_key = jax.random.split(jax.random.fold_in(key, number))
    return start_key, run_key


def of_levels(residual: Array, inner: int) -> Array:
    """[..., levels], of the last step of each level, of [..., levels * inner]."""
    return residual[..., inner - 1 :: inner]


def problem_of(
    operator: Any, prior: Prior | VolumePrior, measurement: ArrayLike, along: Along | None, method: str
) -> Problem:
    """Of an image or of a volume."""
    if isinstance(prior, VolumePrior):
        return build_volume_problem(operator, prior, measurement, along, method)
    if along is not None:
        raise UserError("along ties the slices of a volume, but the prior is one of images: leave it out")
    return build_problem(operator, prior.denoise, measurement, prior.frame, channels=prior.channels)


def method_and_settings(solver: str | Settings, settings: Settings | None) -> tuple[Method, Settings]:
    """The row and the settings."""
    if not isinstance(solver, str):
        if settings is not None:
            raise ValueError("solver holds the settings already: leave `settings` out")
        return find_method(name_of(solver)), solver
    method = find_method(solver)
    if settings is None:
        return method, method.make()
    if not isinstance(settings, method.settings):
        name, wanted = type(settings).__name__, method.settings.__name__
        raise ValueError(f"settings are {name} but solver is {solver!r}: give solver={wanted}(...)")
    warnings.warn(
        f"reconstruct(solver={solver!r}, settings=...) is deprecated: give solver={type(settings).__name__}(...)",
        FutureWarning,
        stacklevel=3,
    )
    return find_method(name_of(settings)), settings


def _told(settings: Settings, problem: Problem, noise_std: Array) -> tuple[Settings, Problem]:
    """The settings with the noise, and the problem weighted where entries differ in it."""
    if noise_std.ndim:
        problem, noise_std = problem.weighted(noise_std)
    if jnp.iscomplexobj(problem.measurement):  # half of the variance is that of the real part
        noise_std = noise_std / jnp.sqrt(jnp.asarray(2, noise_std.dtype))
    return dataclasses.replace(settings, noise=noise_std) if hasattr(settings, "noise") else settings, problem


def _refuse_second(settings: Settings) -> None:
    """Raises UserError for settings that name a noise beside `noise_std`."""
    noise = getattr(settings, "noise", 0)
    if not isinstance(noise, jax.core.Tracer) and np.any(np.asarray(noise) != 0):
        name = type(settings).__name__
        raise UserError(f"{name}: noise is {noise}, and noise_std is given too: leave one of them out")


def start_image(start: Any, problem: Problem, operator: Any, channels: int, noise_std: Array | None = None) -> Array:
    """The image [H, W, C], or volume, that `start` stands for; see `reconstruct`."""
    shape = problem.image_shape(channels)
    if isinstance(start, TV) or (isinstance(start, str) and start == "tv"):
        settings = start if isinstance(start, TV) else TV()
        settings = for_volumes(settings) if isinstance(problem, VolumeProblem) else settings
        found = total_variation(problem.measurement, operator, settings=settings, noise_std=noise_std)
        return found.image.reshape(shape)
    if not isinstance(start, str):
        given = checked("start", start)
        if given.size != np.prod(shape) or given.shape[:2] != shape[:2]:
            raise ValueError(f"start has shape {given.shape}: the prior's images have {shape}")
        if jnp.iscomplexobj(given):
            raise UserError("start is complex, but the prior's images are real: give the real part, or the magnitude")
        return given.reshape(shape)
    if start == "noise":
        return jnp.zeros(shape, jnp.float32)
    if start != "operator":
        raise ValueError(f"start is {start!r}: use 'noise', 'operator', 'tv', TV(...) or an image {shape}")
    if not hasattr(operator, "start"):
        raise ValueError("start is 'operator', but this operator has no .start: use 'noise', 'tv' or an image")
    return jnp.clip(quick_image(operator, problem.measurement), 0, 1).reshape(shape)


def quick_image(operator: Any, measurement: Array) -> Array:
    """`operator.start` of a measurement, float32, not clipped."""
    return _quick_image(as_pytree(operator), measurement)


@jax.jit
def _quick_image(operator: Any, measurement: Array) -> Array:
    return single(jnp.real(operator.start(measurement)))
