"""A user's mask and kernel, read from their files and checked against the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images import open_source
from padis_jax.images.arrays import map_npy
from padis_jax.images.locate import kind_of


def read_mask(path: str, image_shape: tuple[int, int], *, rows_up: bool = False) -> np.ndarray:
    """A mask [H, W], True where the pixel is known, from a picture or array: white (or 1) is known.

    Args:
      path: of the file. An array has the rows of the image's array; a picture lies on the image as it is shown. Values
        are 0 and 1 of any type, 0 and another one where the type has no white, or more or less than half of white.
      image_shape: (H, W) of the image.
      rows_up: whether the image's row 0 is shown at the bottom.

    Raises:
      UserError: for a file that cannot be read, is no single grey image of that size, or marks no pixel, or every one.
    """
    source = open_source(path)
    if source.shape[0] != 1:
        raise UserError(f"--mask {path}: holds {source.shape[0]} images; give a file with one")
    values = source.read(0)
    if (values != values[..., :1]).any():  # not of NaN either
        raise UserError(f"--mask {path}: is in colour, or not finite; a mask is black (missing) and white (known)")
    if values.shape[:2] != image_shape:
        raise UserError(
            f"--mask {path}: {values.shape[:2]} pixels, but the image has {image_shape}; make one of that size"
        )
    values = values[..., 0]
    low, high = values.min(), values.max()
    white = 1 if high <= 1 else source.full or (high if np.isin(values, (0, high)).all() else None)
    if low < 0 or white is None:
        raise UserError(f"--mask {path}: values from {low:g} to {high:g}; a mask has 0 (missing) and 1 (known)")
    known = values > white / 2
    if known.all() or not known.any():
        which = "every pixel is" if known.any() else "no pixel is"
        raise UserError(f"--mask {path}: {which} above half of white; known pixels must be white, missing ones black")
    picture = kind_of(source.origins[0].file) == "picture"
    return known[::-1] if rows_up and picture else known


def read_kernel(path: str, image_shape: tuple[int, int]) -> np.ndarray:
    """A kernel [h, w] of real numbers from a .npy file, taken as it is (a blur that keeps the brightness sums to 1).

    Raises:
      UserError: for a file that cannot be read or holds no such kernel.
    """
    if Path(path).suffix.lower() != ".npy":
        raise UserError(f"--kernel {path}: must be a .npy file of [h, w]; write one with numpy.save")
    if not Path(path).is_file():
        raise UserError(f"--kernel {path}: no such file")
    kernel = map_npy(Path(path))
    if kernel.dtype.kind not in "fiub" or kernel.ndim != 2 or kernel.size == 0:
        raise UserError(f"--kernel {path}: {kernel.dtype} of shape {kernel.shape}; a kernel is [h, w] of real numbers")
    if kernel.shape[0] > image_shape[0] or kernel.shape[1] > image_shape[1]:
        raise UserError(f"--kernel {path}: {kernel.shape} is larger than the image of {image_shape}; crop the kernel")
    if not np.isfinite(kernel).all() or not kernel.any():
        raise UserError(f"--kernel {path}: must be finite and not all 0")
    return np.array(kernel, np.float64)
