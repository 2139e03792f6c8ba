"""A result with its unit and its source, ready to be written: [0, 1] goes back through the window of the weights."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from padis_jax.images import ImageSet, Window

NOTICE = "Not for diagnosis"  # begins every text in a header, so that no limit of a field cuts it off


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Images in their own unit.

    Attributes:
      values: float32 [N, H, W, C] in `window.unit`; nothing is clipped.
      window: the values that become black and white in formats of integers without a scale (PNG, TIFF).
      source: the N images that the result is of: spacing, and files whose headers are carried over.
      description: `NOTICE`, then what was done, one line; goes into the headers.
      stored: what `window` is in the source's file.
      anonymous: what the source's header says of the patient is left out.
    """

    values: np.ndarray
    window: Window
    source: ImageSet
    description: str
    stored: Window
    anonymous: bool = False

    @property
    def uneven(self) -> str:
        """Which slices are not as far apart as the others; "" for an evenly spaced volume."""
        gaps = np.diff(self.source.places)
        if not gaps.size:
            return ""
        usual = float(np.sort(gaps)[(gaps.size - 1) // 2])
        at = int(np.argmax(np.abs(gaps - usual)))
        first, second = self.source.names[at : at + 2]
        return f"{first} and {second} are {gaps[at]:g} mm apart, others {usual:g} mm"

    @property
    def stored_values(self) -> np.ndarray:
        """The values as the source's file has them, where it does not tell what white is: bytes from 0 to 255."""
        if self.stored == self.window:
            return self.values
        scale = (self.stored.high - self.stored.low) / (self.window.high - self.window.low)
        return (self.stored.low + (self.values.astype(np.float64) - self.window.low) * scale).astype(np.float32)


def result(
    images: np.ndarray | jax.Array,
    source: ImageSet,
    description: str,
    *,
    window: Window,
    deviation: bool = False,
    anonymise: bool = False,
) -> Result:
    """A Result from images in [0, 1].

    Args:
      images: [N, H, W, C] in units of the window; standard deviations if `deviation`.
      source: the N images that they are of.
      description: what was done, one line.
      window: of the prior: v = low + x (high - low), for standard deviations s (high - low).
      anonymise: leave out what the source's header says of the patient.
      deviation: the images are standard deviations, which have no offset; black is 0 then.

    Raises:
      ValueError: if the sizes or counts differ, or a value is not finite.
    """
    array = np.asarray(images, np.float32)
    if array.shape != tuple(source.images.shape):
        raise ValueError(f"a result {array.shape} is not of images {tuple(source.images.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("a result to be written must be finite")
    description = f"{NOTICE}; {description}" if description else NOTICE
    scale = window.high - window.low
    stored = source.stored if source.stored is not None and source.window == window else window
    if deviation:
        width = Window(stored.unit, 0.0, stored.high - stored.low)
        return Result(array * np.float32(scale), Window(window.unit, 0.0, scale), source, description, width, anonymise)
    values = (window.low + array.astype(np.float64) * scale).astype(np.float32)
    return Result(values, window, source, description, stored, anonymise)
