"""The settings of every method for each kind of problem: what sample.py and the benchmark run unless told otherwise.

    kind     problems
    counts   tomography with photon counts, and measured scans
    ct       tomography without noise
    few      the same with 8 views or a missing angle
    small    blurs, reductions, single missing pixels
    large    boxes, strokes and any mask, reduction by 8
    noise    denoising, sigma 0.1

A preset overrides a method's own defaults by `SETTINGS` (for as many iterations as `SPANS` says) and `FEW`; a method
that no table names runs with its own. `python -m padis_jax.solvers.presets` prints the table of docs/methods.md.

Below `MANY` evaluations per tiling a diffusion method starts from total variation with noise of the first level added,
and DPS, Langevin, DDNM and predictor-corrector take ancestral steps, one on each level (solvers/transitions.py). From
there on a run starts from noise alone at level 1, and the first three take ten of the paper's Langevin steps on each
level. DAPS, whose Langevin chain leaves noise that only many levels remove, runs CG and two steps of its ODE when
evaluations are few. The noise of the measurement is a setting of the methods that weigh it, and comes from the
measurement; DDNM, which cannot, takes ten CG steps instead of A+ under counts.

DPS's step of 1.7, the weights of TV and the levels and weights of plug-and-play of `counts`, `ct` and `few` were chosen
on validation slices of the head CT (configs/dps.py, docs/studies/tune.md); those of denoising (DPS zeta 0.3, DiffPIR
weight 1) and plug-and-play of `small` and `noise` on a crop of a photograph that is neither trained on nor tested;
nothing else is tuned. Where the noise of an image differs from its problem's, the weight of TV follows it in
proportion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from padis_jax.problems.registry import Kind as TaskKind
from padis_jax.solvers.registry import METHODS, Method, Settings, find_method
from padis_jax.solvers.tv import TV

MANY = 250  # evaluations, divided by the tilings, from which a run starts from noise alone: 4 tilings of 1000 do
INNER = 10  # steps per level then, of the methods in SMALL_STEPS
SMALL_STEPS = ("dps", "langevin", "ddnm")
SIGMA_MIN = 0.003
DEFAULT, SAMPLING = "pnp_admm", "dds"  # of sample.py: the method, and that of samples and of large gaps
EVALUATIONS, CHAINS = 50, 2  # of sample.py: evaluations of each run, and runs whose mean a sampler shows
TV_ITERATIONS = 500

Kind = TaskKind | Literal["counts"]
KINDS: tuple[Kind, ...] = ("counts", *get_args(TaskKind))
TV_WEIGHT: dict[Kind, float] = {"counts": 1.0, "ct": 0.003, "few": 0.003, "small": 0.001, "large": 0.001, "noise": 0.1}
FIRST_LEVEL: dict[Kind, float] = {"counts": 0.2, "ct": 0.2, "few": 0.2, "small": 0.2, "large": 1.0, "noise": 0.2}
# method -> kind -> first and last level, of the methods that do not begin at FIRST_LEVEL and end at SIGMA_MIN
LEVELS: dict[str, dict[Kind, tuple[float, float]]] = {
    "pnp_admm": {"counts": (0.1, 0.01), "ct": (0.1, 0.01), "few": (0.5, 0.015)},
}
MOST: dict[str, dict[Kind, int]] = {"pnp_admm": {"counts": 25}}  # iterations, more of which fit the noise
# method -> field -> iterations, from and up to which SETTINGS gain: momentum loses with 5, averaging with 10, a solved
# data step with 50
SPANS: dict[str, dict[str, tuple[int, int]]] = {
    "pnp_admm": {"momentum": (10, 10**6), "averaging": (20, 10**6), "cg_steps": (1, 40)}
}
# method -> field -> kind -> value; kinds that are not named have the method's own default
SETTINGS: dict[str, dict[str, dict[Kind, Any]]] = {
    "dds": {"cg_steps": dict.fromkeys(KINDS, 10)},
    "dps": {"zeta": {**dict.fromkeys(KINDS, 1.7), "noise": 0.3}},
    "ddnm": {"cg_steps": {"counts": 10}},
    "diffpir": {"weight": {"noise": 1.0}},
    "tmpd": {"cg_steps": dict.fromkeys(KINDS, 2)},
    "pnp_admm": {
        "sigma": {"small": 0.03, "large": 0.03, "noise": 0.1},
        "weight": {"counts": 4e-4, "ct": 0.002, "few": 0.003, "small": 0.03, "large": 0.01, "noise": 1.0},
        "power": {"counts": 1.0},
        "damping": {"counts": 0.5},
        "momentum": {"counts": 0.4, "ct": 0.4, "few": 0.4},
        "averaging": {"counts": 0.7, "ct": 0.7, "small": 0.7},
        "cg_steps": {"ct": 15},
    },
    "pnp_red": {
        "sigma": {"counts": 0.03, "ct": 0.02, "few": 0.02, "small": 0.03, "large": 0.03, "noise": 0.1},
        "weight": {"counts": 0.01, "ct": 0.003, "few": 0.003, "small": 0.03, "large": 0.01, "noise": 1.0},
    },
}
FEW: dict[str, dict[str, Any]] = {
    **{name: {"prior_step": "ancestral"} for name in SMALL_STEPS},
    "predictor_corrector": {"predictor": "ancestral"},
    "daps": {"ode_steps": 2, "sampler": "cg"},
}


class Plan(NamedTuple):
    """How a method runs: its settings, and the options of `reconstruct`.

    Attributes:
      method: its name.
      settings: of its class.
      levels: noise levels, or iterations of plug-and-play.
      inner: steps per level.
      sigma_max: first noise level.
      sigma_min: last noise level.
      ladder: "geometric" or "edm".
      start: "tv", "operator" or "noise".
      average: chains whose mean is the image.
    """

    method: str
    settings: Settings
    levels: int
    inner: int = 1
    sigma_max: float = 1.0
    sigma_min: float = SIGMA_MIN
    ladder: Literal["geometric", "edm"] = "geometric"
    start: Literal["tv", "operator", "noise"] = "tv"
    average: int = 1

    @property
    def row(self) -> Method:
        """Of the registry."""
        return METHODS[self.method]

    @property
    def steps(self) -> int:
        """Of all chains."""
        return self.levels * self.inner * self.average

    @property
    def evaluations(self) -> int:
        """Network evaluations of the image, with one tiling in each."""
        return self.steps * self.row.evaluations(self.settings)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `reconstruct`, without the settings."""
        return {name: getattr(self, name) for name in self._fields[2:]}

    def described(self) -> dict[str, Any]:
        """As JSON holds it.

        A setting that came `later` than results did is left out at its default: they are known by what this says.
        """
        fields = dataclasses.fields(self.settings)
        silent = {f.name for f in fields if f.metadata.get("later") and getattr(self.settings, f.name) == f.default}
        settings = {name: value for name, value in dataclasses.asdict(self.settings).items() if name not in silent}
        return {"method": self.method, "settings": settings, **self.options()}


def kind_of(kind: TaskKind, *, counts: bool) -> Kind:
    """The kind of preset, of a problem whose photons are counted or not."""
    return "counts" if counts and kind in ("ct", "few") else kind


def preset(
    name: str, kind: Kind, evaluations: int = EVALUATIONS, *, tilings: int = 1, given: Mapping[str, Any] | None = None
) -> Plan:
    """A run of at most `evaluations` network evaluations of the image, in one chain.

    Args:
      name: of the method.
      kind: of the problem.
      evaluations: the budget; at least that of one step is spent.
      tilings: K, tilings averaged in each call of the prior.
      given: settings that replace the preset's; they do not change the levels.

    Raises:
      ValueError: for an unknown method or setting, or a value out of range.
    """
    row, many = find_method(name), evaluations // tilings >= MANY
    chosen = {field: values[kind] for field, values in SETTINGS.get(name, {}).items() if kind in values}
    chosen |= {} if many else FEW.get(name, {})
    steps = max(1, evaluations // (row.evaluations(row.make(**chosen)) * tilings))
    for field, (least, most) in SPANS.get(name, {}).items():
        if not least <= steps <= most:
            chosen.pop(field, None)
    settings = row.make(**{**chosen, **(given or {})})
    if row.begin is not None or not many:
        steps = min(steps, MOST.get(name, {}).get(kind, steps))
        first, last = LEVELS.get(name, {}).get(kind, (FIRST_LEVEL[kind], SIGMA_MIN))
        return Plan(name, settings, steps, sigma_max=first, sigma_min=last)
    inner = INNER if name in SMALL_STEPS else 1
    return Plan(name, settings, max(1, steps // inner), inner, start="noise")


def tv_preset(kind: Kind, *, noise: float | None = None, usual: float = 0.0) -> TV:
    """Total variation for a kind of problem.

    Args:
      kind: of the problem.
      noise: standard deviation of the image's noise, if it is not the usual.
      usual: that of the problem, which the weight was chosen for.
    """
    share = 1.0 if noise is None or not usual else max(noise / usual, 0.1)
    return TV(weight=TV_WEIGHT[kind] * share, iterations=TV_ITERATIONS)


def unsuited(method: str, problem: str) -> str:
    """Why a method is not for the problem of that name, in a few words; "" if it is."""
    if method == "sirt" and problem.endswith("bicubic"):
        return "its kernel has negative entries"
    if method == "ddnm" and problem == "denoise":
        return "A+ is 1: it would put the noisy image back"
    if method == "ddnm" and problem.startswith("deblur"):
        return "the inverse of a blur amplifies whatever noise and rounding there is"
    return ""


def markdown() -> str:
    """The table of docs/methods.md: what differs from a method's own defaults, in a run of sample.py."""
    lines = ["| method | kind | settings | levels | first, last | start |", "|---|---|---|---|---|---|"]
    for name, row in METHODS.items():
        own, groups = row.make(), {}  # type: ignore[var-annotated]
        for kind in KINDS:
            plan = preset(name, kind)
            changed = [f for f in row.fields if getattr(plan.settings, f) != getattr(own, f)]
            text = ", ".join(f"{f} {_number(getattr(plan.settings, f))}" for f in changed) or "its own defaults"
            fixed = getattr(plan.settings, "sigma", 0)
            ends = "" if fixed else f"{_number(plan.sigma_max)}, {_number(plan.sigma_min)}"
            groups.setdefault((text, str(plan.levels), ends, plan.start), []).append(kind)
        for (text, *rest), kinds in groups.items():
            shown = "all" if len(kinds) == len(KINDS) else ", ".join(kinds)
            lines.append(f"| `{name}` | {shown} | {text} | {' | '.join(rest)} |")
    weights = ", ".join(f"{_number(TV_WEIGHT[kind])} ({kind})" for kind in KINDS)
    lines.append(f"| TV | all | {TV_ITERATIONS} iterations, weight {weights} | | | |")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(markdown(), end="")
