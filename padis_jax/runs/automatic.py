"""--auto: the weight and the iterations of a run, chosen from the case's measurement (solvers/auto.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from padis_jax.errors import user_errors
from padis_jax.runs.case import Case, image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of, tv_of
from padis_jax.solvers.auto import Watch, choose
from padis_jax.solvers.presets import Plan
from padis_jax.solvers.search import Choice, few


def chosen_plan(plan: Plan, shown: Mapping[str, Any]) -> Plan:
    """The plan with what `Choice.shown` says was chosen."""
    settings = {"weight": shown["weight"]} | shown.get("settings", {})
    if "sigma_max" in shown:
        plan = plan._replace(sigma_max=shown["sigma_max"], sigma_min=shown["sigma_min"], ladder="geometric")
    return plan._replace(settings=dataclasses.replace(plan.settings, **settings), levels=shown["levels"])


def choice_of(
    config: Experiment, case: Case, plan: Plan, *, blind: bool = False, levels: bool = False, watch: Watch | None = None
) -> Choice:
    """What the measurement of a case chooses; the truth is not looked at.

    The noise of a simulation is known, and that of a measured scan where `measurement.noise` names it; an estimate from
    neighbouring bins knows nothing of what the model leaves out.

    Args:
      config: of the run.
      case: with its prior.
      plan: that of a run without --auto.
      blind: take the noise as unknown.
      levels: whether the levels are chosen, too.
      watch: called with every trial and its image.

    Raises:
      UserError: for a method without such a weight.
    """
    assert case.prior is not None
    known = not blind and (case.measurement.protocol != "measured" or config.measurement.noise > 0)
    solver = dataclasses.replace(config.solver, levels=few(plan))
    short = plan_of(dataclasses.replace(config, solver=solver, auto=False), case.kind, case)
    settings = dataclasses.replace(short.settings, weight=plan.settings.weight)
    std = case.noise_std if known and bool(jnp.any(case.noise_std > 0)) else None
    with user_errors():
        return choose(
            jax.random.fold_in(image_key(config.seed, config.image.number), 3),
            case.measurement.y,
            case.operator,
            case.prior,
            plan,
            noise_std=std,
            views=case.problem.tomography,
            axis=case.views_axis,
            short=short._replace(settings=settings),
            levels=levels,
            tv=case.smoothed_by(tv_of(config, case.kind, case.problem, case.evenness)),
            **case.ties,
            watch=watch,
        )
