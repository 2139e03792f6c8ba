"""The settings of total variation, which sample.py turns into flags --tv.FIELD."""

from __future__ import annotations

import dataclasses
import math

from padis_jax.errors import UserError
from padis_jax.fields import check_count, check_fields
from padis_jax.solvers.presets import TV_ITERATIONS


@dataclasses.dataclass(frozen=True)
class TVConfig:
    """Total variation, the classical baseline.

    Attributes:
      weight: of the total variation; None for the preset's (solvers/presets.py).
      iterations: primal-dual iterations.
    """

    weight: float | None = None
    iterations: int = TV_ITERATIONS

    def __post_init__(self) -> None:
        check_fields(self, "tv.")
        if not (self.weight is None or 0 < self.weight < math.inf):
            raise UserError(f"tv.weight is {self.weight:g}: it must be positive and finite")
        check_count("tv.iterations", self.iterations)
