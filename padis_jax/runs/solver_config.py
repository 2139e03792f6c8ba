"""The solver of a run: its method, what was chosen of its settings, and how it runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Literal

from padis_jax.errors import UserError, quoted
from padis_jax.fields import check_count, check_fields
from padis_jax.noise import SIGMA_RANGE
from padis_jax.solvers.presets import DEFAULT
from padis_jax.solvers.registry import find_method

RENAMED = {"churn": "eta", "pinv_steps": "cg_steps", "pnp_sigma": "sigma", "pnp_weight": "weight"}


@dataclasses.dataclass(frozen=True, init=False)
class SolverConfig:
    """The solver: a method, the settings of its own that are chosen, and how it runs. None is the preset's value.

    Attributes:
      method: a name in `solvers.registry.METHODS`; "" for the run's default: plug-and-play, but DDS
        for samples and where large parts are missing.
      settings: fields of the method's settings class; unset ones have the preset's value (solvers/presets.py), else the
        method's own default.
      levels: noise levels; iterations of plug-and-play.
      inner: steps per level.
      sigma_max: first noise level, in image units.
      sigma_min: last noise level.
      ladder: spacing of the levels: "geometric", or "edm" (rho = 7).
      start: "tv", "operator" (FBP) or "noise" (a zero image); noise of deviation sigma_max is added, except in
        plug-and-play.
      average: independent chains whose mean is the result; multiplies the cost; not of plug-and-play and RED-diff.
    """

    method: str
    settings: Mapping[str, Any]
    levels: int | None
    inner: int | None
    sigma_max: float | None
    sigma_min: float | None
    ladder: Literal["geometric", "edm"] | None
    start: Literal["tv", "operator", "noise"] | None
    average: int | None

    def __init__(
        self,
        method: str = "",
        *,
        settings: Mapping[str, Any] | None = None,
        levels: int | None = None,
        inner: int | None = None,
        sigma_max: float | None = None,
        sigma_min: float | None = None,
        ladder: Literal["geometric", "edm"] | None = None,
        start: Literal["tv", "operator", "noise"] | None = None,
        average: int | None = None,
        **fields: Any,
    ) -> None:
        """The fields of the class; those of the method may also be given by name: SolverConfig("dps", zeta=1.7).

        Raises:
          UserError: for an unknown method or field, or a value out of range.
        """
        if "name" in fields:  # until the next release
            method = fields.pop("name")
            print(f'note: SolverConfig(name="{method}") is now SolverConfig("{method}")', file=sys.stderr)
        if not isinstance(settings, (Mapping, type(None))):
            raise UserError(f"solver.settings is {quoted(settings)}: it must map names of settings to values")
        given = dict(settings or {})
        method = method or (DEFAULT if given or fields else "")
        for name, value in fields.items():
            new = RENAMED.get(name, name)
            if new != name:
                print(f"note: SolverConfig({name}=...) is now SolverConfig({new}=...)", file=sys.stderr)
            given[new] = value
        run = (levels, inner, sigma_max, sigma_min, ladder, start, average)
        values: dict[str, Any] = dict(zip(RUN_FIELDS, run, strict=True)) | {"method": method, "settings": given}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        check_fields(self, "solver.")
        for name in ("levels", "inner", "average"):
            if values[name] is not None:
                check_count(f"solver.{name}", values[name])
        for name in ("sigma_min", "sigma_max"):
            if not SIGMA_RANGE[0] <= (level := 1.0 if values[name] is None else values[name]) <= SIGMA_RANGE[1]:
                raise UserError(f"solver.{name} is {level}: give {SIGMA_RANGE[0]:g} to {SIGMA_RANGE[1]:g}")
        try:
            find_method(method or DEFAULT).make(**given)
        except (TypeError, ValueError) as error:
            raise UserError(f"solver: {error}") from error

    def __hash__(self) -> int:
        return hash((self.method, *self.run_fields.items(), *sorted(self.settings.items())))

    @property
    def run_fields(self) -> dict[str, Any]:
        """What is not None of the fields that every method has."""
        values = ((name, getattr(self, name)) for name in RUN_FIELDS)
        return {name: value for name, value in values if value is not None}


RUN_FIELDS = tuple(field.name for field in dataclasses.fields(SolverConfig))[2:]
