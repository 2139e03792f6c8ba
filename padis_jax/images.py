"""Files <-> float32 images in [0, 1], channel last, with the window that says what 0 and 1 stand for.

Read are a CT volume (.npz with `volume` in Hounsfield units and `spacing`), an array (.npy) and pictures (PNG, TIFF,
JPEG: a folder of them, or one). A window maps v to clip((v - low) / (high - low), 0, 1); it is saved with the weights,
because a prior only knows images of its own window. Nothing in a file is executed: pickled objects are refused.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from PIL import Image, ImageOps

from padis_jax.errors import UserError
from padis_jax.files import write_bytes

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, KeyError, struct.error, zlib.error, zipfile.BadZipFile)

Values = TypeVar("Values", np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Window:
    """The linear map between values in `unit` and the interval [0, 1]; `low` goes to 0 and `high` to 1."""

    unit: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise UserError(f"window: low {self.low} must be below high {self.high}, both finite")

    def to_unit(self, values: Values) -> Values:
        """Values in `unit` -> [0, 1], clipped. Any shape."""
        return ((values - self.low) / (self.high - self.low)).clip(0.0, 1.0)

    def from_unit(self, image: Values) -> Values:
        """[0, 1] -> values in `unit`. Any shape; nothing is clipped."""
        return image * (self.high - self.low) + self.low


HOUNSFIELD = Window("HU", -1000.0, 1000.0)  # air 0, water 0.5
PLAIN = Window("1", 0.0, 1.0)  # pictures: black 0, white 1


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size.

    Attributes:
      images: float32 [N, H, W, C] in [0, 1].
      names: N names for messages and files.
      window: what 0 and 1 stand for.
      spacing: millimetres between slices, rows and columns, where the file tells.
    """

    images: np.ndarray
    names: tuple[str, ...]
    window: Window
    spacing: tuple[float, float, float] | None = None

    def select(self, indices: Sequence[int]) -> ImageSet:
        """The images at `indices`, in that order; UserError if there is no such image."""
        for index in indices:
            if not 0 <= index < len(self.names):
                raise UserError(f"there is no image {index}: the set has {len(self.names)}, counted from 0")
        chosen = tuple(self.names[index] for index in indices)
        return dataclasses.replace(self, images=self.images[list(indices)], names=chosen)


def read_images(path: str | Path, *, window: Window | None = None) -> ImageSet:
    """Reads a .npz volume, a .npy array, a folder of pictures or one picture.

    Args:
      path: `.npz`: array `volume` [N, H, W] in Hounsfield units, and optionally `spacing` [3] in mm. `.npy`: [H, W],
        [N, H, W] or [N, H, W, C]. Folder: all its PNG, TIFF and JPEG files in the order of their names, of one size,
        grey (8 or 16 bits, or float TIFF) or colour (8 bits); other files in it are passed over.
      window: the values that become 0 and 1. Without it: -1000..1000 HU for a volume, the full range for pictures and
        for uint8 arrays, and floats must lie in [0, 1] already.

    Returns:
      An ImageSet.

    Raises:
      UserError: one line which names the file, what is wrong with it, and the remedy.
    """
    path = Path(path)
    if path.is_dir():
        return _read_pictures(_pictures_in(path), window)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_volume(path, window)
    if suffix == ".npy":
        return _read_array(path, window)
    if suffix in PICTURES:
        return _read_pictures([path], window)
    known = ", ".join((".npz", ".npy", *PICTURES))
    raise UserError(f"{path}: images of type {suffix or '(no suffix)'!r} are not known; known are {known} and folders")


def write_png(path: str | Path, image: np.ndarray | jax.Array) -> None:
    """Writes an image in [0, 1] (clipped) as an 8-bit PNG, atomically.

    Args:
      path: the file.
      image: [H, W], [H, W, 1] (grey) or [H, W, 3] (colour).

    Raises:
      ValueError: for another shape.
      UserError: if the file cannot be written; an earlier one is unchanged then.
    """
    pixels = np.asarray(image)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[-1] != 3):
        raise ValueError(f"a PNG needs an image [H, W], [H, W, 1] or [H, W, 3], got {pixels.shape}")
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels.clip(0.0, 1.0) * 255.0).astype(np.uint8)).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _read_volume(path: Path, window: Window | None) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("volume", "spacing") if name in archive}
            found = ", ".join(archive.files) or "nothing"
    except (*_UNREADABLE, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a readable .npz of arrays (damaged, or holds objects): {error}") from error
    if "volume" not in arrays:
        raise UserError(f"{path}: holds {found}, but no array `volume` [slices, rows, columns]")
    volume = arrays["volume"]
    if volume.ndim != 3 or 0 in volume.shape:
        raise UserError(f"{path}: `volume` has shape {volume.shape}, expected [slices, rows, columns]")
    if window is None and volume.dtype.kind == "f" and volume.min() >= 0.0 and volume.max() <= 1.0:
        raise UserError(f"{path}: `volume` lies in [0, 1], which are no Hounsfield units; give its window")
    spacing = arrays.get("spacing")
    if spacing is not None and (spacing.shape != (3,) or spacing.dtype.kind not in "fiu" or not np.all(spacing > 0.0)):
        raise UserError(f"{path}: `spacing` is {spacing.tolist()}, expected three positive lengths in mm")
    window = window or HOUNSFIELD
    millimetres = None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    names = tuple(f"slice {index}" for index in range(len(volume)))
    return ImageSet(_scaled(volume, window, str(path), "`volume`")[..., None], names, window, millimetres)


def _read_array(path: Path, window: Window | None) -> ImageSet:
    try:
        array = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable .npy of numbers (damaged, or holds objects): {error}") from error
    if array.ndim == 3 and array.shape[-1] <= 4:
        raise UserError(f"{path}: shape {array.shape} is read as [N, H, W]; store colour images as [N, H, W, C]")
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise UserError(f"{path}: shape {array.shape}, expected [H, W], [N, H, W] or [N, H, W, C], none of them 0")
    images = _scaled(array, window, str(path), "the array")
    images = images[None, ..., None] if array.ndim == 2 else images[..., None] if array.ndim == 3 else images
    return ImageSet(images, tuple(f"{path.stem} {index}" for index in range(len(images))), window or PLAIN)


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no images in this folder; it should hold files of type {', '.join(PICTURES)}")
    return found


def _read_pictures(paths: list[Path], window: Window | None) -> ImageSet:
    first = _scaled_picture(paths[0], window)
    images = np.empty((len(paths), *first.shape), np.float32)  # filled in place: a stack of a list would need it twice
    for index, path in enumerate(paths):
        picture = _scaled_picture(path, window)
        if picture.shape != first.shape:
            raise UserError(
                f"{path}: {_size(picture)}, but {paths[0].name} is {_size(first)}; bring all to one size and kind"
            )
        images[index] = picture
    return ImageSet(images, tuple(path.name for path in paths), window or PLAIN)


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]} {'grey' if picture.shape[2] == 1 else 'colour'}"


def _scaled_picture(path: Path, window: Window | None) -> np.ndarray:
    """One picture as float32 [H, W, C] in [0, 1]."""
    try:
        with Image.open(path) as opened:
            pages = getattr(opened, "n_frames", 1)
            raw_mode = str(opened.tile[0][3]) if opened.tile else ""
            picture = ImageOps.exif_transpose(opened)
            pixels = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
            mode = picture.mode
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded, the file is damaged or truncated: {error}") from error
    if pages > 1:
        raise UserError(f"{path}: holds {pages} pages; save them as one .npy array [N, H, W]")
    if mode not in ("1", "L", "P", "RGB", "F", "I") and not mode.startswith("I;16"):
        raise UserError(f"{path}: colour mode {mode} is not known; convert it to grey or RGB without an alpha channel")
    if mode == "RGB" and "16" in raw_mode:
        raise UserError(f"{path}: colour of 16 bits per channel is not read; convert it to 8 bits, or to a .npy array")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if window is None and pixels.dtype == np.uint16:  # the full range is the convention of picture files, not of arrays
        return (pixels / np.float32(65535.0)).astype(np.float32)
    return _scaled(pixels, window, str(path), "the picture")


def _scaled(values: np.ndarray, window: Window | None, source: str, what: str) -> np.ndarray:
    """`values` as float32 in [0, 1]; refuses what is not a finite real number or has no known range."""
    if values.dtype.kind not in "fiub":
        raise UserError(f"{source}: {what} has dtype {values.dtype}, expected real numbers")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = tuple(int(axis) for axis in np.argwhere(~np.isfinite(values))[0])
        raise UserError(f"{source}: {what} is {values[bad]} at index {bad}; mend or leave out that image")
    if window is not None:
        return window.to_unit(values.astype(np.float32))
    if values.dtype == np.uint8:
        return values.astype(np.float32) / 255.0
    if values.dtype.kind in "iu":
        raise UserError(f"{source}: {what} has dtype {values.dtype}, of no known range; give a window (low, high)")
    low, high = float(values.min()), float(values.max())
    if low < 0.0 or high > 1.0:
        raise UserError(f"{source}: {what} runs from {low:g} to {high:g}, not within [0, 1]; give a window (low, high)")
    return values.astype(np.float32)
