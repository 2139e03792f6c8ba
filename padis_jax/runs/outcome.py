"""What a run has found: images and scores, filled row by row, so that an interruption leaves what is finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from padis_jax.errors import user_errors
from padis_jax.images import ImageSet
from padis_jax.runs.case import Case, simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.divergence import refuse_divergence
from padis_jax.runs.prior import with_prior
from padis_jax.runs.score import Row, score
from padis_jax.runs.solve import Run, rows_of, timed
from padis_jax.solvers.samples import Samples
from padis_jax.weights import Weights


@dataclasses.dataclass
class Outcome:
    """What a run has found so far.

    Attributes:
      images: name -> [H, W, C] in [0, 1], in the order of the columns.
      rows: scores.
      residuals: of the solver, per level.
      samples: of the solver, if there are several.
      more: what else metrics.json says.
      warnings: that were printed before the solver began.
    """

    images: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)
    residuals: Any = ()
    samples: Samples | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def fill(self, case: Case, rows: Mapping[str, Run], look: Callable[[str, Any], None] | None = None) -> None:
        """Computes and scores the rows, one after the other; `look` is shown each name and image before the next.

        Raises:
          UserError: for what a method refuses, and an image that is not finite.
        """
        for name, run in rows.items():
            with user_errors():
                solved, seconds = timed(run, self.images)
            refuse_divergence(name, solved.image)
            seconds = seconds if solved.seconds is None else solved.seconds
            self.rows.append(score(name, solved.image, case, evaluations=solved.evaluations, seconds=seconds))
            self.images[name] = solved.image
            self.residuals = () if solved.residuals is None else solved.residuals
            self.samples = solved.samples
            if look is not None:
                look(name, solved.image)


def reconstruct_image(config: Experiment, images: ImageSet, weights: Weights) -> tuple[Case, Outcome]:
    """The chosen image of a set, measured and reconstructed as sample.py does it."""
    case = with_prior(config, simulated_case(config, images), weights)
    outcome = Outcome(dict(case.simple))
    outcome.fill(case, rows_of(config, case, plan_of(config, case.kind, case)))
    return case, outcome
