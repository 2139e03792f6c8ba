"""The intensity window: which values, in which unit, become 0 and 1.

    x = clip((v - low) / (high - low), 0, 1),    v = low + x (high - low)

It is saved with the weights, because a prior only knows images of its own window.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import numpy as np

from padis_jax.errors import UserError, quoted

TINY = np.finfo(np.float32).tiny
Values = TypeVar("Values", np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Window:
    """The linear map between values in `unit` and the interval [0, 1]; `low` goes to 0 and `high` to 1."""

    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        # Images are float32: what is not finite, or one value, in that type is no window.
        with np.errstate(over="ignore"):
            low, width = np.float32(self.low), np.float32(self.high - self.low)
        if not (abs(low) < np.inf and TINY <= width < np.inf and low < np.float32(self.high) < np.inf):
            raise UserError(f"window: low {self.low} must be below high {self.high}, both finite in single precision")
        if not self.unit.isprintable() or len(self.unit) > 40:
            raise UserError(f"window: the unit {quoted(self.unit)} must be a short text, such as HU")

    @property
    def named(self) -> str:
        """The unit as text says it."""
        return f"image values ({self})" if self.unit == "1" else self.unit

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{'' if self.unit == '1' else f' {self.unit}'}"

    def to_unit(self, values: Values) -> Values:
        """Values in `unit` -> [0, 1], clipped. Any shape."""
        return ((values - self.low) / (self.high - self.low)).clip(0.0, 1.0)

    def from_unit(self, image: Values) -> Values:
        """[0, 1] -> values in `unit`. Any shape; nothing is clipped."""
        return image * (self.high - self.low) + self.low


HOUNSFIELD = Window("HU", -1000.0, 1000.0)  # air 0, water 0.5
PLAIN = Window("1", 0.0, 1.0)  # pictures: black 0, white 1
