"""Pictures: PNG and JPEG of 8 or 16 bits, grey or colour, and the pages of TIFF files, whatever their suffix says.

The first bytes say what a file is, and only these three decoders ever see it: others of Pillow start programs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageOps, JpegImagePlugin, PngImagePlugin

from padis_jax.errors import UserError
from padis_jax.images import tiff
from padis_jax.images.guard import check_size, decoding
from padis_jax.images.libtiff import deep
from padis_jax.images.source import MIXED, Origin, Source

_ORIENTATION = 0x0112  # EXIF; 5 to 8 swap rows and columns
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
}
_OTHERS = {b"BM": "BMP", b"GIF8": "GIF", b"RIFF": "WebP", b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript"}
_MODES: dict[str, tuple[type, int, int]] = {
    "1": (np.bool_, 1, 1),
    "L": (np.uint8, 8, 1),
    "P": (np.uint8, 8, 3),
    "RGB": (np.uint8, 8, 3),
    "I;16": (np.uint16, 16, 1),
    "I": (np.int32, 32, 1),
}


class Page(NamedTuple):
    """Where a picture is and what it is as it is shown: shape (H, W, C), type and bits of a value; how it is read."""

    file: Path
    number: int
    pages: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    bits: int
    read: Callable[[], np.ndarray]
    animated: bool = False


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
    several = [page.file.name for page in pages if page.animated]
    note = f"{several[0]}: holds several pictures, of which the first is read" if several else ""
    if len(several) > 1:
        note = f"{len(several)} files hold several pictures each, of which the first is read ({several[0]} ...)"
    return Source(
        path=str(files[0] if len(files) == 1 else files[0].parent),
        read=lambda index: _read(pages[index]),
        shape=(len(pages), *first.shape),
        dtype=first.dtype,
        names=tuple(p.file.name if p.pages == 1 else f"{p.file.name} {p.number}" for p in pages),
        origins=tuple(Origin(p.file, p.number, "" if p.pages == 1 or len(files) == 1 else p.file.name) for p in pages),
        full=float(2**first.bits - 1) if first.dtype.kind in "bu" and first.bits <= 16 else None,
        notes=(note,) if note else (),
    )


def _about(page: Page) -> str:
    height, width, channels = page.shape
    unsigned = page.dtype.kind in "bu" and page.bits <= 16
    depth = f"{page.bits} bit{'s' if page.bits > 1 else ''}" if unsigned else str(page.dtype)
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'} of {depth}"


def _pages(file: Path) -> list[Page]:
    with decoding(file, "picture"), open(file, "rb") as handle:
        start = handle.read(8)
    if start[:4] in tiff.MAGIC:
        found = tiff.list_slices(file)
        return [
            Page(file, n, len(found), one.shape, one.dtype, one.bits, lambda one=one: tiff.read_slice(one))  # type: ignore[misc]
            for n, one in enumerate(found)
        ]
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        what = next(
            (f"it is {name}," for magic, name in _OTHERS.items() if start.startswith(magic)), "it is damaged, or"
        )
        raise UserError(f"{file}: not a readable picture; {what} no PNG, JPEG or TIFF; convert it to PNG")
    with decoding(file, "picture"), opener(file) as opened:
        return [_page(file, opener, opened)]


def _page(file: Path, opener: Callable[[Path], Any], opened: Any) -> Page:
    mode, raw_mode = opened.mode, str(opened.tile[0].args) if opened.tile else ""
    if mode not in _MODES:
        raise UserError(f"{file}: colour mode {mode} is not supported; convert it to grey or RGB without alpha")
    if "transparency" in opened.info and not _opaque(opened.info["transparency"]):
        raise UserError(f"{file}: has transparent pixels, which have no value; flatten it to grey or RGB without alpha")
    kind, bits, channels = _MODES[mode]
    (width, height), bits = opened.size, 16 if "16" in raw_mode else bits
    dtype = np.dtype(np.uint16 if bits == 16 else kind)
    stored = 1 / 8 if mode == "1" or (";" in raw_mode and bits < 16) else dtype.itemsize
    check_size(
        file, (1, height, width, channels), stored / (3 if mode == "P" else 1), file.stat().st_size, compressed=True
    )
    if opened.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
        width, height = height, width
    several = "mp" in opened.info or getattr(opened, "is_animated", False)  # MPO, APNG

    def read() -> np.ndarray:
        with opener(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            pixels = np.asarray(picture.convert("RGB") if mode == "P" else picture)
        if bits == 16 and mode == "RGB":
            with opener(file) as opened:
                pixels = deep(pixels, opened)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    return Page(file, 0, 1, (height, width, channels), dtype, bits, read, several)


def _opaque(transparency: Any) -> bool:
    """Whether a palette's alpha leaves no entry transparent; a colour key always does."""
    return isinstance(transparency, bytes) and not transparency.strip(b"\xff")


def _read(page: Page) -> np.ndarray:
    """The pixels of a page, [H, W, C]."""
    with decoding(page.file, "picture"), warnings.catch_warnings():  # of what is repaired or refused
        warnings.simplefilter("ignore")
        pixels = page.read()
    if pixels.shape != page.shape:
        raise UserError(f"{page.file}: its header says {page.shape} but its pixels are {pixels.shape}; it is damaged")
    return pixels.astype(page.dtype, copy=False)
