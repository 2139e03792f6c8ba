"""Pictures of several sizes made to fit one frame for training: grey, resized, or whole for random crops.

grey     Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, Pillow's "L"); grey images stay as they are
resize   scaled until the picture covers H x W, by Pillow's bilinear filter (antialiased), the middle of it taken
crop     H x W pixels: anywhere for a draw of training, the middle for validation (streamed.CroppedImages); with
         `scales`, a draw of training is reduced by a random factor
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from padis_jax.images.source import Source
from padis_jax.streamed import resampled

Read = Callable[[int], np.ndarray]
_LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Shaping:
    """What is done to every image; `crop` and `resize` are (H, W) or None, `scales` a range of factors for crops."""

    crop: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
    grey: bool = False
    scales: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.crop or self.resize or self.grey)


def shaped(source: Source, shaping: Shaping) -> Source:
    """The source in grey and resized; what is to be cropped stays whole."""
    count, height, width, channels = source.shape
    if shaping.grey and channels == 3:
        source = dataclasses.replace(source, read=_then(source.read, _grey), shape=(count, height, width, 1))
    if shaping.resize:
        size = shaping.resize
        shape, read = (count, *size, source.shape[-1]), _then(source.read, lambda values: _resized(values, size))
        source = dataclasses.replace(source, read=read, shape=shape, spacing=None)
    return source


def _then(read: Read, change: Callable[[np.ndarray], np.ndarray]) -> Read:
    """Both only mix values, so that what they make is kept within the range of what was read."""

    def changed(index: int) -> np.ndarray:
        values = read(index)
        return np.clip(change(values.astype(np.float32)), values.min(), values.max()).astype(np.float32)

    return changed


def _grey(values: np.ndarray) -> np.ndarray:
    return (values @ _LUMA)[..., None]


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width, _ = values.shape
    scale = max(size[0] / height, size[1] / width)
    h, w = min(size[0] / scale, height), min(size[1] / scale, width)  # of the part that is taken
    box = ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)
    return resampled(values, size, box)
