"""What Pillow decodes that other code here does not: compressed TIFF, by libtiff, and colour of 16 bits per channel."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps, TiffImagePlugin

from padis_jax.errors import UserError

_LOW_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": f"RGB;16{'B' if sys.byteorder == 'little' else 'L'}",
}


@functools.cache
def _quiet() -> None:
    """libtiff writes what it finds wrong to stderr by itself, beside our one line; its handlers of that are taken off.

    Of Pillow's wheels, that is: elsewhere its lines stay.
    """
    folder = Path(PIL.__file__).parent
    for file in (*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(file))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


def read_page(file: Path, page: Any, dtype: np.dtype, bits: int) -> tuple[np.ndarray, bool]:
    """(values of a page, upright [H, W, C], whether WhiteIsZero is inverted in them, as Pillow does up to 8 bits).

    Args:
      file: of the page.
      page: tifffile's.
      dtype: of the values.
      bits: of a value.

    Raises:
      UserError: for types and layouts that Pillow or libtiff does not know.
    """
    codec = f"{page.compression.name} of {page.bitspersample} bits ({page.dtype}, {page.photometric.name})"
    predicted = page.predictor > 1 and page.compression.name == "PACKBITS"  # libtiff knows no such thing
    if page.shaped[1] > 1 or (page.shaped[0] > 1 and bits > 8) or predicted:
        raise UserError(f"{file}: {codec} in this layout is not supported; save it uncompressed")
    _quiet()
    with _FromPage(file, page.offset) as handle:
        try:
            opened: Any = TiffImagePlugin.TiffImageFile(handle)
            raw = str(opened.tile[0].args[0])
            array, mode = _pixels(opened)
        except (SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{file}: {codec} is not supported at this size; save it uncompressed") from error
        if mode == "RGB" and bits == 16:
            handle.seek(0)
            array = deep(array, TiffImagePlugin.TiffImageFile(handle))
    if array.dtype == np.uint8 and bits < 8:
        array = array // np.uint8(255 // (2**bits - 1))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.itemsize == dtype.itemsize and array.dtype.kind != "b":
        array = array.view(dtype)
    array = array.astype(dtype, copy=False)
    if opened.use_load_libtiff and sys.byteorder == "little" and "B" in raw.partition(";")[2]:
        array = array.byteswap()  # libtiff has turned the bytes around already, which Pillow overlooks in these modes
    return array[..., None] if array.ndim == 2 else array, mode in ("1", "L")


def _pixels(opened: Image.Image) -> tuple[np.ndarray, str]:
    opened.load()
    return np.array(opened.convert("RGB") if opened.mode == "P" else opened), opened.mode


def deep(high: np.ndarray, opened: Any) -> np.ndarray:
    """Colour of 16 bits, of which Pillow hands out the upper 8: a second decoding is told to take the lower 8.

    Args:
      high: uint8 [H, W, 3], as decoded.
      opened: the picture, opened again and not yet loaded.

    Returns:
      uint16 [H, W, 3], upright.
    """
    tiles = []
    for tile in opened.tile:
        raw, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args
        tiles.append(tile._replace(args=_LOW_BYTES[raw] if isinstance(tile.args, str) else (_LOW_BYTES[raw], *rest)))
    opened.tile = tiles
    return high.astype(np.uint16) << 8 | np.asarray(ImageOps.exif_transpose(opened))


class _FromPage(io.FileIO):
    """A TIFF file whose first page is that at `offset`: Pillow seeks page n by reading the n before it."""

    def __init__(self, file: Path, offset: int) -> None:
        super().__init__(file)
        head = super().read(16) or b""
        at, size = (8, 8) if 43 in head[2:4] else (4, 4)
        first = offset.to_bytes(size, "little" if head[:2] == b"II" else "big")
        self._head = head[:at] + first + head[at + size :]
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        at = self.tell()
        data = super().read(-1 if size is None else size) or b""
        return self._head[at : at + len(data)] + data[max(0, len(self._head) - at) :] if at < len(self._head) else data
