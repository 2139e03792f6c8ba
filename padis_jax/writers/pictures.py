"""Pictures: PNG of 8 bits for the eye, PNG and TIFF of 16 bits for results.

    pixel = round(65535 clip((v - low) / (high - low), 0, 1))

What was done, and what 0 and 65535 stand for, is written into the file (PNG texts `Description` and `window`, TIFF
ImageDescription).
"""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from padis_jax.display import as_plane
from padis_jax.errors import UserError
from padis_jax.files import write_bytes
from padis_jax.images.guard import library
from padis_jax.window import PLAIN
from padis_jax.writers.result import Result

_DEEP = "pictures with colour of 16 bits per channel"


def write_png(path: str | Path, image: np.ndarray | jax.Array, *, software: str = "") -> None:
    """Writes an image in [0, 1] (clipped, NaN as 0) as an 8-bit PNG, atomically.

    Args:
      path: the file.
      image: as `display.as_plane` takes it.
      software: text of that name in the file.

    Raises:
      ValueError: for what is no image.
      UserError: if the file cannot be written; an earlier one is unchanged then.
    """
    pixels = as_plane(image)
    buffer, about = io.BytesIO(), PngImagePlugin.PngInfo()
    if software:
        about.add_text("Software", software)
    Image.fromarray(np.rint(np.nan_to_num(pixels.clip(0.0, 1.0)) * 255.0).astype(np.uint8)).save(
        buffer, format="PNG", pnginfo=about
    )
    write_bytes(path, buffer.getvalue())


def png_bytes(result: Result, index: int) -> bytes:
    """Image `index` as a PNG of 16 bits, grey or colour; UserError for other channels."""
    pixels = _sixteen_bits(result)[index]
    buffer, texts = io.BytesIO(), {"Description": result.description, "window": _window_text(result)}
    if pixels.shape[-1] == 1:
        about = PngImagePlugin.PngInfo()
        for key, text in texts.items():
            about.add_text(key, text)
        Image.fromarray(pixels[..., 0]).save(buffer, format="PNG", pnginfo=about)
    else:
        height, width, channels = pixels.shape
        png = library("png", "pictures", _DEEP)
        bare = io.BytesIO()
        writer = png.Writer(width, height, greyscale=False, bitdepth=16)
        writer.write(bare, pixels.reshape(height, width * channels))
        first, *rest = png.Reader(bytes=bare.getvalue()).chunks()
        told = [(b"tEXt", f"{key}\0{text}".encode("latin-1", "replace")) for key, text in texts.items()]
        png.write_chunks(buffer, [first, *told, *rest])
    return buffer.getvalue()


def tiff_bytes(result: Result) -> bytes:
    """All images as the pages of one TIFF of 16 bits, grey or colour; UserError for other channels."""
    pixels = _sixteen_bits(result)
    about = f"{result.description}; {_window_text(result)}"
    if result.source.spacing is not None:
        about += (
            f"; {' x '.join(f'{length:g}' for length in result.source.spacing)} mm between slices, rows and columns"
        )
    buffer = io.BytesIO()
    if pixels.shape[-1] == 1:
        pages = [Image.fromarray(page[..., 0]) for page in pixels]
        text = about.encode("ascii", "replace").decode()
        pages[0].save(buffer, format="TIFF", save_all=True, append_images=pages[1:], description=text)
    else:
        tifffile.imwrite(buffer, pixels, photometric="rgb", description=about.encode("ascii", "replace"))
    return buffer.getvalue()


def _sixteen_bits(result: Result) -> np.ndarray:
    if (channels := result.values.shape[-1]) not in (1, 3):
        raise UserError(f"results of {channels} channels are neither grey nor colour; use npz or hdf5")
    return np.rint(result.window.to_unit(result.values.astype(np.float64)) * 65535.0).astype(np.uint16)


def _window_text(result: Result) -> str:
    window, unit = result.window, "" if result.window.unit == PLAIN.unit else f" {result.window.unit}"
    return f"0 is {window.low:g}{unit}, 65535 is {window.high:g}{unit}"
