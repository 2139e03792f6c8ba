"""Pictures: PNG, JPEG and TIFF of 8 or 16 bits, grey or colour, and TIFF stacks of several pages.

Pillow reads them, but for colour of 16 bits per channel, of which it would keep 8: pypng and tifffile read those.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from padis_jax.errors import UserError
from padis_jax.images.guard import check_size, decoding, library, quiet
from padis_jax.images.source import MIXED, Origin, Source

_ORIENTATION = 0x0112  # EXIF; 5 to 8 swap rows and columns
_BITS_PER_SAMPLE = 258
_TYPES = {"1": np.bool_, "L": np.uint8, "P": np.uint8, "RGB": np.uint8, "F": np.float32, "I": np.int32}
_FULL = {"uint8": 255.0, "uint16": 65535.0, "bool": 1.0}
MAX_PAGES = 2**16


class Page(NamedTuple):
    """Where a picture is and what it is: size as shown, channels, type; `deep` for 16 bits per channel of colour."""

    file: Path
    number: int
    pages: int
    height: int
    width: int
    channels: int
    dtype: np.dtype
    deep: bool


def open_pictures(files: Sequence[Path]) -> Source:
    """Pictures of one size, kind and depth, a slice each page. Only their headers are read here.

    Raises:
      UserError: which names the first file that is damaged, of an unknown colour mode, or unlike the first.
    """
    pages = [page for file in files for page in _pages(file)]
    first = pages[0]
    for page in pages:
        if _about(page) != _about(first):
            place = f"{page.file}" + (f", page {page.number}" if page.pages > 1 else "")
            raise UserError(f"{place}: {_about(page)}, but {first.file.name} is {_about(first)}; {MIXED}")
    return Source(
        path=str(files[0] if len(files) == 1 else files[0].parent),
        read=lambda index: _read(pages[index]),
        shape=(len(pages), first.height, first.width, first.channels),
        dtype=first.dtype,
        names=tuple(p.file.name if p.pages == 1 else f"{p.file.name} {p.number}" for p in pages),
        origins=tuple(Origin(p.file, p.number, "" if p.pages == 1 or len(files) == 1 else p.file.name) for p in pages),
        full=_FULL.get(first.dtype.name),
    )


def _about(page: Page) -> str:
    depth = {"bool": "1 bit", "uint8": "8 bits", "uint16": "16 bits"}.get(page.dtype.name, str(page.dtype))
    return f"{page.width} x {page.height} {'grey' if page.channels == 1 else 'colour'} of {depth}"


def _pages(file: Path) -> list[Page]:
    with decoding(file, "picture"), Image.open(file) as opened:
        count = int(getattr(opened, "n_frames", 1))
        if count > MAX_PAGES:
            raise UserError(f"{file}: declares {count} pages, more than {MAX_PAGES}; is it damaged?")
        pages = []
        for number in range(count):
            if number:
                opened.seek(number)
            pages.append(_page(file, number, count, opened))
    return pages


def _page(file: Path, number: int, count: int, opened: Image.Image) -> Page:
    tile = getattr(opened, "tile", None)  # how the decoder is told what is stored: ... 16 bits per channel
    mode, raw_mode = opened.mode, str(tile[0][3]) if tile else ""
    depths = opened.tag_v2.get(_BITS_PER_SAMPLE, ()) if isinstance(opened, TiffImagePlugin.TiffImageFile) else ()
    deep = mode == "RGB" and ("16" in raw_mode or 16 in depths)
    if mode not in _TYPES and not mode.startswith("I;16"):
        raise UserError(f"{file}: colour mode {mode} is not supported; convert it to grey or RGB without alpha")
    width, height = opened.size
    itemsize = 0 if mode == "1" else 1  # fax compression of blank lines knows no bound
    check_size(file, (1, height, width, 1), itemsize, file.stat().st_size, compressed=True)
    if opened.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
        width, height = height, width
    dtype = np.dtype(np.uint16 if deep or mode.startswith("I;16") else _TYPES[mode])
    return Page(file, number, count, height, width, 3 if mode in ("RGB", "P") else 1, dtype, deep)


def _read(page: Page) -> np.ndarray:
    """The pixels of a page, [H, W, C]."""
    with decoding(page.file, "picture"):
        pixels = _read_deep(page) if page.deep else _read_plain(page)
        pixels = pixels.reshape(page.height, page.width, page.channels)
    return pixels.astype(page.dtype, copy=False)


def _read_plain(page: Page) -> np.ndarray:
    with Image.open(page.file) as opened:
        if page.number:
            opened.seek(page.number)
        picture = ImageOps.exif_transpose(opened)
        return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


def _read_deep(page: Page) -> np.ndarray:
    what = "pictures with colour of 16 bits per channel"
    if page.file.suffix.lower() == ".png":
        reader = library("png", "pictures", what).Reader(filename=str(page.file))
        _, _, rows, _ = reader.read()
        return np.vstack([np.asarray(row, np.uint16) for row in rows])
    tifffile = library("tifffile", "pictures", what)
    with quiet(logging.getLogger("tifffile")):
        pixels = np.asarray(tifffile.imread(page.file, key=page.number))
    return np.moveaxis(pixels, 0, -1) if pixels.shape == (3, page.height, page.width) else pixels  # planar
