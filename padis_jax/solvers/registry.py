"""The methods, a row each: what the command line, the presets, the benchmark, the estimates and the docs know of one.

A new method is its file and one row here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from padis_jax.solvers import (
    daps,
    ddnm,
    dds,
    diffpir,
    dps,
    langevin,
    pigdm,
    plug_and_play,
    predictor_corrector,
    red_diff,
    tmpd,
)
from padis_jax.solvers.sampling import State

Settings = Any  # an instance of a row's settings class


class Method(NamedTuple):
    """A row.

    Attributes:
      settings: the class of its settings, a frozen dataclass.
      step: (settings, problem, key, state, noise) -> (state, info with a `residual`).
      sigma_max: the first noise level where nobody names one, in image units.
      label: its name in tables and pictures.
      text: what it is, in a line.
      evaluations: settings -> calls of the network per step; a derivative that costs as much counts as one.
      gradient: whether a step differentiates the network.
      fixed: fields that the row decides.
      sigma_min: the last noise level where nobody names one.
      begin: (settings, image [H, W, C]) -> state, for a method whose state holds no noise; its levels are
        `settings.sigma`, if it has that and it is not 0, else the ladder's.
      image: state -> image, of such a method.
      alone: why the mean of several runs of such a method is no better answer; completes "runs of NAME ...".
    """

    settings: type
    step: Callable[..., tuple[State, Any]]
    sigma_max: float
    label: str
    text: str
    evaluations: Callable[[Any], int] = lambda settings: 1
    gradient: bool = False
    fixed: Mapping[str, Any] = MappingProxyType({})
    sigma_min: float = 0.003
    begin: Callable[[Any, Any], State] | None = None
    image: Callable[[State], Any] | None = None
    alone: str = "differ in their tilings only"

    @property
    def fields(self) -> tuple[str, ...]:
        """The settings that can be chosen."""
        return tuple(f.name for f in dataclasses.fields(self.settings) if f.name not in self.fixed)

    def make(self, **given: Any) -> Settings:
        """The settings with these fields, all others at the method's own defaults.

        Raises:
          ValueError: for a field that the method does not have, or a value out of range.
        """
        if unknown := [name for name in given if name not in self.fields]:
            raise ValueError(f"{self.label} has no setting {unknown[0]!r}; it has {', '.join(self.fields)}")
        return self.settings(**{**self.fixed, **given})


def _plug_and_play(form: str, text: str) -> Method:
    return Method(
        plug_and_play.PlugAndPlay,
        plug_and_play.step,
        0.05,
        f"PnP-{form.upper()}",
        text,
        fixed=MappingProxyType({"method": form}),
        sigma_min=0.01,
        begin=plug_and_play.begin,
        image=plug_and_play.image,
    )


METHODS: dict[str, Method] = {
    "dds": Method(
        dds.DDS, dds.step, 2.0, "DDS", "data consistency by conjugate gradients; fast, the default of samples"
    ),
    "dps": Method(dps.DPS, dps.step, 10.0, "DPS", "the method of the paper; differentiates the network", gradient=True),
    "langevin": Method(
        langevin.Langevin, langevin.step, 10.0, "Langevin", "annealed Langevin dynamics and a data step"
    ),
    "ddnm": Method(ddnm.DDNM, ddnm.step, 10.0, "DDNM", "projection onto noiseless data by A+"),
    "diffpir": Method(diffpir.DiffPIR, diffpir.step, 2.0, "DiffPIR", "half-quadratic splitting along the noise levels"),
    "predictor_corrector": Method(
        predictor_corrector.PredictorCorrector,
        predictor_corrector.step,
        10.0,
        "predictor-corrector",
        "reverse diffusion with Langevin corrections",
        lambda settings: 2,
    ),
    "daps": Method(
        daps.DAPS,
        daps.step,
        10.0,
        "DAPS",
        "decoupled annealing posterior sampling",
        lambda settings: settings.ode_steps,
    ),
    "tmpd": Method(
        tmpd.TMPD,
        tmpd.step,
        2.0,
        "TMPD",
        "the denoiser's derivative as the covariance of the image",
        lambda settings: settings.cg_steps + 3,
        gradient=True,
    ),
    "pigdm": Method(
        pigdm.PiGDM,
        pigdm.step,
        2.0,
        "PiGDM",
        "pseudo-inverse guidance; differentiates the network",
        gradient=True,
    ),
    "red_diff": Method(
        red_diff.REDDiff,
        red_diff.step,
        1.0,
        "RED-diff",
        "variational; the denoised image's pull, by Adam",
        begin=red_diff.begin,
        image=red_diff.image,
        alone="each fit the mean of the posterior and draw no sample from it",
    ),
    "pnp_admm": _plug_and_play("admm", "plug-and-play ADMM along falling noise levels"),
    "pnp_red": _plug_and_play("red", "plug-and-play by regularisation by denoising, likewise"),
}


def find_method(name: str) -> Method:
    """The row of that name.

    Raises:
      ValueError: with all names if there is none.
    """
    if name not in METHODS:
        raise ValueError(f"there is no solver {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def name_of(settings: Settings) -> str:
    """The name of the method whose settings these are.

    Raises:
      ValueError: for an object that is no method's settings.
    """
    for name, row in METHODS.items():
        if type(settings) is row.settings and all(getattr(settings, k) == v for k, v in row.fixed.items()):
            return name
    classes = ", ".join(dict.fromkeys(row.settings.__name__ for row in METHODS.values()))
    raise ValueError(f"solver is a {type(settings).__name__}: give a name ({', '.join(METHODS)}) or one of {classes}")
