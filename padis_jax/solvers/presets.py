"""The settings of every method for each kind of problem, in one table, for few and for many network evaluations.

    kind     problems                                      TV weight  first level  PnP sigma  PnP weight  zeta  DiffPIR
    counts   tomography with photon counts                 1          0.2          0.03       0.01        1.7   8
    ct       tomography without noise                      0.003      0.2          0.02       0.003       1.7   8
    small    blurs, reductions, single missing pixels      0.001      0.2          0.03       0.03        1.7   8
    large    boxes, strokes and any mask, reduction by 8   0.001      1            0.03       0.01        1.7   8
    noise    denoising, sigma 0.1                          0.1        0.2          0.1        1           0.3   1

zeta is the step of DPS, the last column DiffPIR's weight; the first level is that of a run of few evaluations.
Plug-and-play starts from total variation. So does, below 250 evaluations per tiling, a diffusion method, with noise of
the first level added; DPS, Langevin and DDNM take ancestral steps then, one on each level (solvers/prior_step.py), as
does the predictor of predictor-corrector. From there on a run starts from noise alone at level 1, and the first three
take ten of the paper's Langevin steps on each level. DAPS, whose Langevin chain leaves noise that only many levels take
out, has CG in its place, and two steps of its ODE, in a run of few. DDS takes ten CG steps on each level, TMPD two.
The noise level of the measurement is given to the methods that weigh it; DDNM, which cannot, takes ten CG steps in the
place of A+ under counts. Steps of 1.7 (DPS), the weights of TV and plug-and-play of `counts` and `ct` were chosen on
validation slices of the head CT (docs/studies/tune.md); those of denoising (DPS zeta 0.3, DiffPIR weight 1)
and plug-and-play of `small` and `noise` on a crop of a photograph that is neither trained on nor tested; all else are
the modules' defaults or stated here, and not tuned. Where an image's noise is another than its task's, the weight of TV
follows it in proportion.

The benchmark takes all of it, and so does `sample.py --problem`, with EVALUATIONS in CHAINS runs whose mean it shows.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

from padis_jax.problems.registry import Kind as TaskKind
from padis_jax.problems.registry import Task
from padis_jax.solvers.daps import DAPS
from padis_jax.solvers.ddnm import DDNM
from padis_jax.solvers.dds import DDS
from padis_jax.solvers.diffpir import DiffPIR
from padis_jax.solvers.dps import DPS
from padis_jax.solvers.langevin import Langevin
from padis_jax.solvers.plug_and_play import PlugAndPlay
from padis_jax.solvers.predictor_corrector import PredictorCorrector
from padis_jax.solvers.prior_step import PriorStep
from padis_jax.solvers.reconstruct import SOLVERS, Settings
from padis_jax.solvers.tmpd import TMPD
from padis_jax.solvers.tv import TV

MANY = 250  # evaluations, divided by the tilings, from which a run starts from noise alone: 4 tilings of 1000 do
INNER = 10  # steps per level then, of the methods in SMALL_STEPS
SMALL_STEPS = ("dps", "langevin", "ddnm")
SIGMA_MIN = 0.003
EVALUATIONS, CHAINS = 100, 2  # of sample.py

Kind = TaskKind | Literal["counts"]
TV_WEIGHT: dict[Kind, float] = {"counts": 1.0, "ct": 0.003, "small": 0.001, "large": 0.001, "noise": 0.1}
FIRST_LEVEL: dict[Kind, float] = {"counts": 0.2, "ct": 0.2, "small": 0.2, "large": 1.0, "noise": 0.2}
PNP_SIGMA: dict[Kind, float] = {"counts": 0.03, "ct": 0.02, "small": 0.03, "large": 0.03, "noise": 0.1}
PNP_WEIGHT: dict[Kind, float] = {"counts": 0.01, "ct": 0.003, "small": 0.03, "large": 0.01, "noise": 1.0}
DPS_ZETA: dict[Kind, float] = {"counts": 1.7, "ct": 1.7, "small": 1.7, "large": 1.7, "noise": 0.3}
DIFFPIR_WEIGHT: dict[Kind, float] = {"counts": 8.0, "ct": 8.0, "small": 8.0, "large": 8.0, "noise": 1.0}
TV_ITERATIONS = 500


def _kind(task: Task, counts: bool) -> Kind:
    return "counts" if counts else task.kind


class Schedule(NamedTuple):
    """How a diffusion method runs: its settings and the options of `reconstruct`."""

    settings: Settings
    options: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"settings": dataclasses.asdict(self.settings), **self.options}


def tv_settings(task: Task, *, counts: bool = False, noise: float | None = None) -> TV:
    """Of total variation.

    Args:
      task: the problem.
      counts: whether it is tomography with photon counts.
      noise: standard deviation of the noise, if it is not the task's.
    """
    share = 1.0 if noise is None or not task.sigma else max(noise / task.sigma, 0.1)
    return TV(weight=TV_WEIGHT[_kind(task, counts)] * share, iterations=TV_ITERATIONS)


def unsuited(solver: str, name: str) -> str:
    """Why a diffusion method is not for the problem of that name, in a few words; "" if it is."""
    if solver == "ddnm" and name == "denoise":
        return "A+ is 1: it would put the noisy image back"
    if solver == "ddnm" and name.startswith("deblur"):
        return "the inverse of a blur amplifies whatever noise and rounding there is"
    return ""


def plug_and_play_settings(method: str, task: Task, *, counts: bool = False) -> PlugAndPlay:
    """Of plug-and-play.

    Args:
      method: "admm" or "red".
      task: the problem.
      counts: whether it is tomography with photon counts.
    """
    kind = _kind(task, counts)
    return PlugAndPlay(method="admm" if method == "admm" else "red", sigma=PNP_SIGMA[kind], weight=PNP_WEIGHT[kind])


def schedule(solver: str, task: Task, evaluations: int, tilings: int = 1, *, counts: bool = False) -> Schedule:
    """A run of at most `evaluations` network evaluations of the image.

    Args:
      solver: a name in `SOLVERS`.
      task: the problem.
      evaluations: the budget; at least that of one step is spent.
      tilings: K, tilings averaged in each call of the prior.
      counts: whether the problem is tomography with photon counts.
    """
    many = evaluations // tilings >= MANY
    settings = solver_settings(solver, task, many=many, counts=counts)
    steps = max(1, evaluations // (SOLVERS[solver].evaluations(settings) * tilings))
    first = FIRST_LEVEL[_kind(task, counts)]
    if not many:
        options: dict[str, Any] = {"levels": steps, "inner": 1, "sigma_max": first, "start": "tv"}
    else:
        inner = INNER if solver in SMALL_STEPS else 1
        options = {"levels": max(1, steps // inner), "inner": inner, "sigma_max": 1.0, "start": "noise"}
    return Schedule(settings, {**options, "sigma_min": SIGMA_MIN})


def solver_settings(solver: str, task: Task, *, many: bool, counts: bool = False) -> Settings:
    """Of a diffusion method.

    Raises:
      ValueError: for an unknown one.
    """
    noise, kind = task.sigma, _kind(task, counts)
    prior_step: PriorStep = "langevin" if many else "ancestral"
    table: dict[str, Settings] = {
        "dds": DDS(cg_steps=10, noise=noise),
        "dps": DPS(zeta=DPS_ZETA[kind], prior_step=prior_step, noise=noise),
        "langevin": Langevin(prior_step=prior_step, noise=noise),
        "ddnm": DDNM(cg_steps=10 if counts else 0, prior_step=prior_step),
        "diffpir": DiffPIR(weight=DIFFPIR_WEIGHT[kind], noise=noise),
        "predictor_corrector": PredictorCorrector(predictor="reverse_diffusion" if many else "ancestral", noise=noise),
        "daps": DAPS(noise=noise) if many else DAPS(ode_steps=2, sampler="cg", noise=noise),
        "tmpd": TMPD(cg_steps=2, noise=noise),
    }
    if solver not in table:
        raise ValueError(f"solver is {solver!r}: there are settings for {', '.join(table)}")
    return table[solver]
