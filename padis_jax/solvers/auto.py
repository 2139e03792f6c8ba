"""Levels, data weight and iterations of plug-and-play for a new problem, from its measurement alone.

First and last level, and how the weight follows the level, are those of a plan, such as the preset of the nearest kind
of problem; or, if asked for, those of `level_range`, from two runs of it. Nothing of the truth is looked at. With v the
image of a trial:

    noise of known s_i    discrepancy principle (Morozov, Soviet Math. Dokl. 7, 414, 1966): the weight at which
                          mean over measured i of ((y - A v)_i / s_i)^2 = 1
    noise unknown, or 0   the weight of the smallest ||(1 - M) (y - A v)||, where v was made of M y and M A (and so was
                          its start from total variation), and M leaves out a few per cent of the measurement: views of
                          a scan, else single entries (cross-validation; Wahba, SIAM J. Numer. Anal. 14, 651, 1977)

Trials of half the plan's iterations (of all of them up to 30), with the settings that suit so many, look for the
weight, from the plan's own, by steps of a factor until the best one lies between two others (`line_search`); a
parabola, or for the discrepancy a line, through the logarithms gives the value between. What is held out is a few per
cent of the measurement, which do not tell weights apart whose errors differ by less than `search.FLAT`: among these the
plan's own stands. By the discrepancy these iterations are the answer: at another number of them another weight comes to
the noise. Where something is held out and the plan has more, one trial more has the best of these weights and all of
the plan's iterations, which are taken if it is better.

A volume is a problem like an image: a trial is a run on all of it, since its data step is one for all slices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from padis_jax.errors import UserError
from padis_jax.keys import root_key
from padis_jax.operators.weighting import weighted
from padis_jax.prior import Prior
from padis_jax.solvers.checks import checked_noise
from padis_jax.solvers.held_out import held_out, measured_entries
from padis_jax.solvers.level_range import Errors, bootstrap_errors, range_of
from padis_jax.solvers.presets import Kind, Plan, preset, tv_preset
from padis_jax.solvers.problem import Problem
from padis_jax.solvers.reconstruct import Reconstruction, problem_of, reconstruct
from padis_jax.solvers.search import Choice, Trial, few, search
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.solvers.volumes import Along
from padis_jax.volume_prior import VolumePrior

Watch = Callable[[Trial, Array], None]


def choose(
    key: Array | int,
    measurement: ArrayLike,
    operator: Any,
    prior: Prior | VolumePrior,
    plan: Plan,
    *,
    noise_std: ArrayLike | None = None,
    views: bool = False,
    axis: int = 0,
    short: Plan | None = None,
    levels: bool = False,
    tv: TV | None = None,
    along: Along | None = None,
    watch: Watch | None = None,
) -> Choice:
    """The plan with the weight and the iterations that suit a measurement.

    Args:
      key: root key, or an int; of the trials' tilings. What is held out does not depend on it.
      measurement: y, finite.
      operator: A, as `reconstruct` takes it.
      prior: whole-image denoiser and frame, or those of volumes.
      plan: of a method with a `weight` whose state holds no noise (plug-and-play, RED-diff); its iterations are the
        most that are chosen, its weight is where the search begins.
      noise_std: of y, one number or one for each entry; None where it is not known.
      views: whether y has an axis of a scan's views, which are held out as a whole.
      axis: that axis.
      short: the plan of `few(plan)` iterations, where other settings suit these; None for those of the plan.
      levels: whether first and last level are chosen, too, instead of the plan's: it gains with few or many views and
        loses in limited angle (docs/studies/auto.md).
      tv: settings of the start from total variation; None for those of TV.
      along: what ties the slices of a volume, as in `reconstruct`.
      watch: called with every trial and its image.

    Raises:
      ValueError: for another method, and what `reconstruct` refuses.
    """
    if plan.row.begin is None or "weight" not in plan.row.fields:
        raise UserError(f"auto: {plan.row.label} has no weight that a measurement chooses: take --solver pnp_admm")
    problem = problem_of(operator, prior, measurement, along, plan.method)
    std = checked_noise(noise_std, problem.measurement.shape, operator)
    measured = measured_entries(operator, problem.measurement.shape)
    known = std is not None and bool(jnp.any(std > 0))
    channels = isinstance(prior, Prior) and measured.shape[-1] == prior.channels
    held = np.zeros_like(measured) if known else held_out(measured, views=views, axis=axis, channels=channels)
    if not (measured & ~held).any():
        what = "one view" if views else "one entry"
        raise UserError(f"auto: the measurement has {what}, and nothing is left when it is held out: give noise_std")
    settings = tv or TV()
    settings = for_volumes(settings) if isinstance(prior, VolumePrior) else settings
    key, short, found, spent = root_key(key), (short or plan)._replace(levels=few(plan)), None, 0
    trial = _Trials(key, problem, prior, std, measured, held, settings, plan.start, along, watch)
    if levels:
        found = range_of(trial.errors(jax.random.fold_in(key, 1), short, settings))
        plan, short = (_between(each, *found) for each in (plan, short))
        spent = 2 * short.levels * short.inner * short.row.evaluations(short.settings)
    choice = search(trial, plan, short=short, rule="discrepancy" if known else "held out")
    return choice._replace(levels=found, evaluations=choice.evaluations + spent)


def reconstruct_auto(
    key: Array | int,
    measurement: ArrayLike,
    operator: Any,
    prior: Prior,
    *,
    kind: Kind = "ct",
    noise_std: ArrayLike | None = None,
    views: bool | None = None,
) -> tuple[Reconstruction, Choice]:
    """Reconstructs by plug-and-play with the weight and the iterations that the measurement chooses.

    Args:
      key: root key, or an int.
      measurement: y.
      operator: A.
      prior: whole-image denoiser and frame.
      kind: of the preset that levels and the first weight are taken from; the nearest of `presets.KINDS`.
      noise_std: of y; None where it is not known.
      views: see `choose`; None for tomography's kinds.

    Returns:
      What `reconstruct` returns, and what was chosen.
    """
    rows = kind in ("counts", "ct", "few") if views is None else views
    plan, tv = preset("pnp_admm", kind), tv_preset(kind)
    short = preset("pnp_admm", kind, few(plan))
    choice = choose(key, measurement, operator, prior, plan, noise_std=noise_std, views=rows, short=short, tv=tv)
    options = {**choice.plan.options(), "start": tv} if plan.start == "tv" else choice.plan.options()
    found = reconstruct(key, measurement, operator, prior, solver=choice.plan.settings, noise_std=noise_std, **options)
    return found, choice


def _between(plan: Plan, first: float, last: float) -> Plan:
    """The plan with these levels, also where it stayed at one."""
    settings = dataclasses.replace(plan.settings, sigma=0.0) if hasattr(plan.settings, "sigma") else plan.settings
    return plan._replace(settings=settings, sigma_max=first, sigma_min=last, ladder="geometric")


class _Trials:
    """Plan -> the value of the rule."""

    def __init__(
        self,
        key: Array,
        problem: Problem,
        prior: Prior | VolumePrior,
        std: Array | None,
        measured: np.ndarray,
        held: np.ndarray,
        tv: TV,
        start: str,
        along: Along | None,
        watch: Watch | None,
    ) -> None:
        self._watch, self._along = watch, along
        self._key, self._problem, self._prior, self._std = key, problem, prior, std
        self._judged, self._y, self._operator = (
            (held if held.any() else measured),
            problem.measurement,
            problem.operator,
        )
        if held.any():
            root = jnp.asarray(~held, self._y.real.dtype)
            shape = prior.frame.image_shape if problem.flat else problem.image_shape(prior.channels)
            self._operator = weighted(problem.operator, root, shape)
            self._y = self._operator.times(self._y)
        self._start: Any = start
        if start == "tv":
            self._start = total_variation(self._y, self._operator, settings=tv, noise_std=std).image

    def __call__(self, plan: Plan) -> float:
        options = {**plan.options(), "start": self._start, "along": self._along}
        arguments = (jax.random.clone(self._key), self._y, self._operator, self._prior)
        image = reconstruct(*arguments, solver=plan.settings, noise_std=self._std, **options).image
        value = self._value(image)
        if self._watch is not None:
            self._watch(Trial(float(plan.settings.weight), plan.levels, value), image)
        return value

    def errors(self, key: Array, plan: Plan, tv: TV) -> Errors:
        """Of a run that sees what trials see."""
        about: dict[str, Any] = {"noise_std": self._std, "tv": tv, "along": self._along}
        return bootstrap_errors(key, self._y, self._operator, self._prior, plan, **about)

    def _value(self, image: Array) -> float:
        residual = np.abs(np.asarray(self._problem.residual(image)))[self._judged].astype(np.float64)
        if self._std is not None and bool(jnp.any(self._std > 0)):
            std = np.broadcast_to(np.asarray(self._std, np.float64), self._judged.shape)[self._judged]
            return float(np.sqrt(np.mean(np.square(residual[std > 0] / std[std > 0]))))
        size = float(np.linalg.norm(np.asarray(self._problem.measurement)[self._judged]))
        return float(np.linalg.norm(residual)) / (size if size > 0 else 1.0)
