"""A named problem in the place of the parallel scan: its task, and the settings that suit it (settings.py)."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

from padis_jax.runs.config import PLUG_AND_PLAY, PROBLEMS, Experiment, MethodName, SolverConfig
from padis_jax.problems.user_files import read_kernel, read_mask
from padis_jax.solvers.presets import CHAINS, EVALUATIONS, plug_and_play_settings, schedule
from padis_jax.split import is_head_ct
from padis_jax.problems.registry import TASKS, Task, blurred_task, masked_task

LIKE = {"inpaint": "inpaint_strokes", "deblur": "deblur9"}  # whose settings a mask or kernel of one's own is given


def with_problem_defaults(config: Experiment, args: Sequence[str]) -> Experiment:
    """The config with the solver's settings for the problem that the arguments name, to be overridden by them.

    The image's index becomes 0 for other images than the head CT. Without `--problem`, all stays as it is.
    """
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--problem", "--solver.name", "--scan.protocol", "--image.path"):
        own.add_argument(flag, default="")
    try:
        known = vars(own.parse_known_args(list(args))[0])
    except argparse.ArgumentError:  # a flag without its value: what reads the flags in earnest says so
        return config
    name, method = known["problem"], known["solver.name"] or config.solver.name
    if name not in PROBLEMS or method not in get_args(MethodName):
        return config  # refused by the config itself
    counts = (known["scan.protocol"] or config.scan.protocol) == "honest"
    image = dataclasses.replace(config.image, path=known["image.path"] or config.image.path)
    if not is_head_ct(image.path):
        image = dataclasses.replace(image, index=0)
    task = TASKS[LIKE.get(name, name)]
    return dataclasses.replace(config, image=image, solver=solver_defaults(method, task, counts=counts))


def solver_defaults(name: MethodName, task: Task, *, counts: bool) -> SolverConfig:
    """The settings of a method for a task, as settings.py has them.

    Args:
      name: of the method.
      task: the problem.
      counts: whether photons are counted, if it is tomography.
    """
    if name in PLUG_AND_PLAY:
        fixed = plug_and_play_settings(name.removeprefix("pnp_"), task, counts=counts and task.tomography)
        more: dict[str, Any] = {f"pnp_{field}": getattr(fixed, field) for field in ("sigma", "weight")}
        return SolverConfig(
            name=name, levels=EVALUATIONS // CHAINS, average=1, cg_steps=fixed.cg_steps, start="tv", **more
        )  # type: ignore[arg-type]
    plan = schedule(name, task, EVALUATIONS // CHAINS, counts=counts and task.tomography)
    fields = {field.name for field in dataclasses.fields(SolverConfig)}
    given: dict[str, Any] = dataclasses.asdict(plan.settings)
    if name == "ddnm":
        given["pinv_steps"] = given.pop("cg_steps")
    given = {field: value for field, value in given.items() if field in fields}
    return SolverConfig(name=name, average=CHAINS, **given, **plan.options)


def task_of(config: Experiment, image_shape: tuple[int, int], *, rows_up: bool = False) -> Task:
    """The task that the config names, with the mask or kernel of its file.

    Args:
      config: the experiment.
      image_shape: (H, W) of the image.
      rows_up: whether its row 0 is shown at the bottom.

    Raises:
      UserError: for a file that cannot be read, or does not fit the image.
    """
    if config.problem == "inpaint":
        return masked_task(read_mask(config.mask, image_shape, rows_up=rows_up))
    if config.problem == "deblur":
        return blurred_task(read_kernel(config.kernel, image_shape), config.boundary)
    return TASKS[config.problem]
