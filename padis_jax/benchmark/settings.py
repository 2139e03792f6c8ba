"""The settings of each method for each kind of problem, in one table, for few and for many network evaluations.

    kind         problems                                              TV weight     first level (few)
    ct           tomography without noise                              0.003         0.2
    small        blurs, reductions, single missing pixels              0.001         0.2
    large        boxes and strokes missing, reduction by 8             0.001         1
    noise        denoising, sigma 0.1                                  0.1           0.2

Up to 300 evaluations a run starts from total variation with noise of the first level added; from there on from noise
alone at level 1, ten steps per level for the methods of small steps. The noise level of the measurement is given to the
methods that weigh it. The weight of `ct` and the step size of DPS were chosen on validation slices of the head CT
(experiment.py, configs/dps.py); all else are the modules' defaults or stated here, and not tuned.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from padis_jax.solvers.daps import DAPS
from padis_jax.solvers.ddnm import DDNM
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.diffpir import DiffPIR
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.predictor_corrector import PredictorCorrector
from padis_jax.solvers.reconstruct import SOLVERS, Settings
from padis_jax.solvers.tv import TV
from padis_jax.tasks import TASKS, Task

MANY = 300  # evaluations from which a run starts from noise alone
INNER = 10  # steps per level then, of the methods in SMALL_STEPS
SMALL_STEPS = ("dps", "langevin", "ddnm")
SIGMA_MIN = 0.003
LARGE = ("inpaint_box", "inpaint_strokes", "sr8")

Kind = Literal["ct", "small", "large", "noise"]
TV_WEIGHT: dict[Kind, float] = {"ct": 0.003, "small": 0.001, "large": 0.001, "noise": 0.1}
FIRST_LEVEL: dict[Kind, float] = {"ct": 0.2, "small": 0.2, "large": 1.0, "noise": 0.2}
TV_ITERATIONS = 500


class Schedule(NamedTuple):
    """How a diffusion method runs: its settings and the options of `reconstruct`."""

    settings: Settings
    options: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"settings": dataclasses.asdict(self.settings), **self.options}


def kind_of(task: str) -> Kind:
    """The row of the table that a task belongs to."""
    if TASKS[task].tomography:
        return "ct"
    if task == "denoise":
        return "noise"
    return "large" if task in LARGE else "small"


def tv_settings(task: str) -> TV:
    """Of total variation."""
    return TV(weight=TV_WEIGHT[kind_of(task)], iterations=TV_ITERATIONS)


def plug_and_play_settings(method: str) -> PlugAndPlay:
    """Of plug-and-play, "admm" or "red", the same for every task."""
    return PlugAndPlay(method="admm" if method == "admm" else "red")


def schedule(solver: str, task: str, evaluations: int, tilings: int = 1) -> Schedule:
    """A run of at most `evaluations` network evaluations of the image.

    Args:
      solver: a name in `SOLVERS`.
      task: a name in `TASKS`.
      evaluations: the budget; at least that of one step is spent.
      tilings: K, tilings averaged in each call of the prior.
    """
    settings = solver_settings(solver, TASKS[task], many=evaluations >= MANY)
    steps = max(1, evaluations // (SOLVERS[solver].evaluations(settings) * tilings))
    if evaluations < MANY:
        options: dict[str, Any] = {"levels": steps, "inner": 1, "sigma_max": FIRST_LEVEL[kind_of(task)], "start": "tv"}
    else:
        inner = INNER if solver in SMALL_STEPS else 1
        options = {"levels": max(1, steps // inner), "inner": inner, "sigma_max": 1.0, "start": "noise"}
    return Schedule(settings, {**options, "sigma_min": SIGMA_MIN})


def solver_settings(solver: str, task: Task, *, many: bool) -> Settings:
    """Of a diffusion method.

    Raises:
      ValueError: for an unknown one.
    """
    noise = task.sigma
    table: dict[str, Settings] = {
        "dds": DDS(cg_steps=10, noise=noise),
        "dps": DPS(zeta=1.7) if many else DPS(),
        "langevin": Langevin(),
        "ddnm": DDNM(cg_steps=10 if task.tomography else 0),
        "diffpir": DiffPIR(noise=noise),
        "predictor_corrector": PredictorCorrector(),
        "daps": DAPS(noise=noise),
    }
    if solver not in table:
        raise ValueError(f"solver is {solver!r}: there are settings for {', '.join(table)}")
    return table[solver]
