"""What a run takes where its config says nothing: the preset of its problem, and the first image of other files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Protocol

from padis_jax.errors import UserError
from padis_jax.noise import check_ladder
from padis_jax.problems.registry import PROBLEMS, NamedProblem, blurred_problem, masked_problem
from padis_jax.problems.user_files import read_kernel, read_mask
from padis_jax.runs.config import LIKE, Experiment
from padis_jax.solvers.presets import CHAINS, EVALUATIONS, SPANS, Kind, Plan, kind_of, preset, tv_preset
from padis_jax.solvers.tv import TV
from padis_jax.split import is_head_ct


class Weighed(Protocol):
    """What `plan_of` looks at of a case."""

    @property
    def share(self) -> float:
        """See `Case.share`."""


def plan_of(config: Experiment, kind: Kind, case: Weighed | None = None) -> Plan:
    """How the solver runs: what the config says, else the preset, else the method's own default.

    Args:
      config: of the run.
      kind: of the problem.
      case: whose entries are weighed by their noise. Presets are for entries of equal noise; weights of mean 1 leave
        noise of another variance, and what weighs the prior in units of ||A||^2, in DDS and plug-and-play, follows it
        (`Case.share`).

    Raises:
      UserError: for values out of range, and settings that contradict each other.
    """
    solver = config.solver
    try:
        levels = solver.run_fields.get("levels", EVALUATIONS) if config.method in SPANS else EVALUATIONS
        plan = preset(config.method, kind, levels, given=solver.settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"solver: {error}") from error
    relative = "weight" if plan.row.begin is not None else "consistency"  # the settings in units of ||A||^2
    if case is not None and relative in plan.row.fields and relative not in solver.settings:
        value = case.share * getattr(plan.settings, relative)
        plan = plan._replace(settings=dataclasses.replace(plan.settings, **{relative: value}))
    if plan.row.begin is None:
        plan = plan._replace(average=CHAINS)
    plan = plan._replace(**solver.run_fields)
    check_ladder(plan.levels, plan.sigma_max, plan.sigma_min)
    named = sorted({"sigma_max", "sigma_min", "ladder"} & set(solver.run_fields))
    fixed = float(getattr(plan.settings, "sigma", 0))
    if named and fixed > 0:
        if "sigma" in solver.settings:
            flags = " and ".join(f"--solver.{name.replace('_', '-')}" for name in named)
            raise UserError(f"solver.sigma is {fixed:g}, one level for all iterations: leave out {flags}")
        plan = plan._replace(settings=dataclasses.replace(plan.settings, sigma=0.0))
    if getattr(plan.settings, "prior_step", "") == "ancestral" and plan.inner > 1:
        raise UserError(
            f"solver.inner is {plan.inner}: ancestral steps are one per level; use 1, or --solver.prior-step langevin"
        )
    return plan


def tv_of(config: Experiment, kind: Kind, problem: NamedProblem, evenness: float = 1.0) -> TV:
    """The settings of total variation, likewise."""
    chosen = tv_preset(kind, noise=config.noise, usual=problem.sigma)
    weight = evenness * chosen.weight if config.tv.weight is None else config.tv.weight
    return dataclasses.replace(chosen, weight=weight, iterations=config.tv.iterations)


def counted(config: Experiment) -> bool:
    """Whether a config's measurement is one of photon counts: measured, or simulated by the honest protocol."""
    return config.scan.protocol == "honest" or bool(config.measurement.path or config.measurements)


def kind_named(config: Experiment) -> Kind:
    """The kind of problem that a config names, before any file is read."""
    kind = PROBLEMS[LIKE.get(config.problem, config.problem)].kind if config.problem else "ct"
    return kind_of(kind, counts=counted(config))


def first_image(config: Experiment, args: Sequence[str]) -> Experiment:
    """The config with index 0 where the arguments name a problem and other images than the head CT."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--problem", "--image.path"):
        known.add_argument(flag, default="")
    try:
        given = vars(known.parse_known_args(list(args))[0])
    except argparse.ArgumentError:  # a flag without its value: what reads the flags in earnest says so
        return config
    path = given["image.path"] or config.image.path
    if not (given["problem"] or config.problem) or is_head_ct(path):
        return config
    return dataclasses.replace(config, image=dataclasses.replace(config.image, index=0))


def problem_of(config: Experiment, image_shape: tuple[int, int], *, rows_up: bool = False) -> NamedProblem:
    """The problem that the config names, with the mask or kernel of its file.

    Args:
      config: of the run.
      image_shape: (H, W) of the image.
      rows_up: whether its row 0 is shown at the bottom.

    Raises:
      UserError: for a file that cannot be read, or does not fit the image.
    """
    if config.problem == "inpaint":
        return masked_problem(read_mask(config.mask, image_shape, rows_up=rows_up))
    if config.problem == "deblur":
        return blurred_problem(read_kernel(config.kernel, image_shape), config.boundary)
    return PROBLEMS[config.problem]
