"""The search of `auto` for a weight and the iterations: it sees a number for each plan that is tried, and no array."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from padis_jax.solvers.line_search import crossing, lowest
from padis_jax.solvers.presets import Plan

FLAT = 0.05  # errors of what is held out that differ by less are alike; docs/studies/auto.md

Rule = Literal["discrepancy", "held out"]


class Trial(NamedTuple):
    """A run of the search.

    Attributes:
      weight: of the prior.
      levels: iterations.
      value: root mean square of (y - A v) / s over what is measured, or ||y - A v|| / ||y|| over what was held out.
    """

    weight: float
    levels: int
    value: float


class Choice(NamedTuple):
    """What `auto.choose` returns.

    Attributes:
      plan: the plan with the levels, the weight and the iterations that were chosen.
      rule: by what.
      trials: in the order in which they were run.
      evaluations: network evaluations of all trials, and of what the levels came from.
      levels: first and last noise level, if the measurement chose them.
    """

    plan: Plan
    rule: Rule
    trials: tuple[Trial, ...]
    evaluations: int
    levels: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """One line: what was chosen and why."""
        few = min(t.levels for t in self.trials)  # of those that looked for the weight
        values = ", ".join(f"{t.value:.4g} at {t.weight:.3g}" for t in sorted(self.trials) if t.levels == few)
        what = "its residual in units of the noise" if self.rule == "discrepancy" else "the error of what was held out"
        levels = "" if self.levels is None else f"levels {self.levels[0]:.3g} to {self.levels[1]:.3g}, "
        return (
            f"auto: {levels}weight {self.plan.settings.weight:.3g}, {self.plan.levels} iterations, by the {self.rule} "
            f"rule: {what} was {values}; {len(self.trials)} trials, {self.evaluations} evaluations"
        )

    def shown(self) -> dict[str, Any]:
        """As JSON holds it."""
        trials = [trial._asdict() for trial in self.trials]
        found = {"weight": float(self.plan.settings.weight), "levels": self.plan.levels, "rule": self.rule}
        found |= {"settings": self.plan.described()["settings"]}
        if self.levels is not None:
            found |= dict(zip(("sigma_max", "sigma_min"), self.levels, strict=True))
        return {**found, "why": self.text, "evaluations": self.evaluations, "trials": trials}


def few(plan: Plan) -> int:
    """Iterations of the trials that look for the weight."""
    return plan.levels // 2 if plan.levels > 30 else plan.levels


def search(trial: Callable[[Plan], float], plan: Plan, *, short: Plan | None = None, rule: Rule) -> Choice:
    """The search itself.

    Args:
      trial: plan -> value, as in `Trial`.
      plan: where it begins.
      short: as in `auto.choose`.
      rule: what the value is.
    """
    done: list[Trial] = []
    short = (short or plan)._replace(levels=few(plan))

    def weighed(weight: float, plan: Plan) -> Plan:
        return plan._replace(settings=dataclasses.replace(plan.settings, weight=weight))

    def value(weight: float, plan: Plan) -> float:
        found = trial(weighed(weight, plan))
        done.append(Trial(weight, plan.levels, found if math.isfinite(found) else math.inf))
        return done[-1].value

    first, chosen = float(plan.settings.weight), short
    if rule == "discrepancy":
        weight = crossing(lambda w: value(w, short), first)
    else:
        weight = lowest(lambda w: value(w, short), first, flat=FLAT)
        best = min(done, key=lambda t: t.value) if weight != first else next(t for t in done if t.weight == first)
        if plan.levels > short.levels and value(best.weight, plan) < best.value:
            chosen = plan
    evaluations = sum(t.levels for t in done) * plan.inner * plan.row.evaluations(plan.settings)
    return Choice(weighed(weight, chosen), rule, tuple(done), evaluations)
