"""TIFF: every page, plane and frame of a file as a slice, in the values and the orientation that the tags state.

tifffile reads the tags and what is not compressed; Pillow's libtiff what is, because it inflates no more than the shape
needs. Of files that keep a stack behind one page entry (ImageJ, tifffile, MetaMorph), tifffile tells the number.
"""

from __future__ import annotations

import functools
import logging
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile as tifffile_

from padis_jax.errors import UserError
from padis_jax.images import libtiff
from padis_jax.images.guard import check_size, decoding, quiet
from padis_jax.images.limit import check_decoded_bytes

tifffile: Any = tifffile_  # whose annotations do not know all that tags may hold
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PAGES = 2**16
_STACKS = ("imagej", "shaped", "stk")  # other flavours of tifffile may open further files that the first one names
_GREY, _COLOUR, _BY_LIBTIFF = ("MINISBLACK", "MINISWHITE"), ("RGB", "YCBCR"), ("PALETTE", "YCBCR")
_LESSER = 1 | 4  # bits of NewSubfileType: of reduced resolution, a transparency mask
_RAW, _DEFLATE, _PACKBITS = 1, (8, 32946), 32773
_LOCK = threading.Lock()


class Slice(NamedTuple):
    """One image of a TIFF file: the page entry at `offset`, the image's number there, and what it is as it is shown."""

    file: Path
    offset: int
    plane: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    bits: int


def list_slices(file: Path) -> list[Slice]:
    """The images of a file in their order, from its tags. Thumbnails and transparency masks are left out.

    Raises:
      UserError: for colours that are neither grey nor RGB, more pages than MAX_PAGES, or more values than stored.
    """
    with decoding(file, "TIFF"), _opened(file) as tif:
        only: Any = None
        seen: set[int] = set()
        pages: list[tuple[int, int, Slice]] = []
        for page in tif.pages:
            if len(pages) == MAX_PAGES or page.offset in seen:
                raise UserError(f"{file}: has more than {MAX_PAGES} pages, or pages in a circle; is it damaged?")
            seen.add(page.offset)
            pages.append((int(page.subfiletype), page.shaped[1], _slice(file, page)))
            only = page if len(pages) == 1 else None
        if not pages:
            raise UserError(f"{file}: has no page that can be read; it is damaged or truncated")
        frames = _frames(file, tif, only) if only is not None else 1
        kept = [page for page in pages if not page[0] & _LESSER] or pages
        if (count := sum(depth * frames for _, depth, _ in kept)) > MAX_PAGES:
            raise UserError(f"{file}: declares {count} images, more than {MAX_PAGES}; is it damaged?")
        return [first._replace(plane=plane) for _, depth, first in kept for plane in range(depth * frames)]


def read_slice(wanted: Slice) -> np.ndarray:
    """The values of an image, [H, W, C], white being the largest where the type knows white."""
    with decoding(wanted.file, "TIFF"), _opened(wanted.file) as tif:
        tif.filehandle.seek(wanted.offset)
        page = tifffile.TiffPage(tif, index=0)
        s, depth, height, width, c = page.shaped
        inverted = upright = False
        if page.photometric.name in _BY_LIBTIFF or not (_direct(page) or _plain(page) or _packed(page)):
            array, inverted = libtiff.read_page(wanted.file, page, wanted.dtype, wanted.bits)
            upright = True
        elif _direct(page) and s == 1:
            dtype, count = np.dtype(tif.byteorder + page.dtype.char), height * width * c
            start = page.dataoffsets[0] + wanted.plane * count * dtype.itemsize
            array = tif.filehandle.read_array(dtype, count, start).reshape(height, width, c)
        elif _direct(page):  # planes of colour, of a stack perhaps
            frame, z = divmod(wanted.plane, depth)
            array = tif.filehandle.read_array(
                np.dtype(tif.byteorder + page.dtype.char), page.size, page.dataoffsets[0] + frame * page.nbytes
            )
            array = np.moveaxis(array.reshape(s, depth, height, width)[:, z], 0, -1)
        elif depth > 1:
            with _LOCK:
                volume = _volume(wanted.file, wanted.offset, wanted.file.stat().st_mtime_ns)
            array = np.moveaxis(volume[:, wanted.plane], 0, -2).reshape(height, width, s * c)
        elif _packed(page):
            array = _unpacked(tif, page)
        else:
            array = np.moveaxis(_decoded(wanted.file, tif, page)[:, 0], 0, -2).reshape(height, width, s * c)
    if page.photometric.name == "MINISWHITE" and not inverted:
        array = _inverted(wanted, array)
    return (array if upright else _upright(array, _orientation(page))).astype(wanted.dtype, copy=False)


def _opened(file: Path) -> Any:
    others = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS if name not in _STACKS and name != "multipage"}
    return tifffile.TiffFile(file, **others)


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return tag.value if tag is not None and tag.value in range(1, 9) else 1


def _slice(file: Path, page: Any) -> Slice:
    """The first image of a page; UserError if it is of a kind or size that cannot be read."""
    s, depth, height, width, c = page.shaped
    kind = page.photometric.name if 262 in page.tags else "MINISBLACK" if s * c == 1 else "RGB"
    fits = s * c == 1 if kind in (*_GREY, "PALETTE") else s * c == 3 and kind in _COLOUR
    if not fits or (kind == "YCBCR" and page.compression == _RAW):
        raise UserError(
            f"{file}: {s * c} samples per pixel of {kind} are not supported; convert it to grey or RGB without alpha"
        )
    if page.dtype is None or page.dtype.kind not in "biuf" or (page.bitspersample < 8 and s * c > 1):
        raise UserError(
            f"{file}: {page.bitspersample} bits of {page.dtype} in {kind} are not supported; convert to 8 or 16"
        )
    itemsize = page.bitspersample / 8 if page.compression in (_RAW, *_DEFLATE, _PACKBITS) else 0
    packed = page.compression != _RAW
    check_size(file, (1, height, width, s * c), itemsize, file.stat().st_size, compressed=packed)
    block = page.tilelength * page.tilewidth * max(1, page.tiledepth) * c if page.is_tiled else 0
    held = block if _direct(page) else max(block, page.size)
    check_decoded_bytes(file, held * page.dtype.itemsize, f"{depth}x{height}x{width}x{s * c} of {page.dtype}")
    palette = kind == "PALETTE"
    dtype = np.dtype(np.uint8) if palette else page.dtype
    size = (width, height) if _orientation(page) > 4 else (height, width)
    return Slice(file, page.offset, 0, (*size, 3 if palette else s * c), dtype, 8 if palette else page.bitspersample)


def _frames(file: Path, tif: Any, page: Any) -> int:
    """How many frames lie behind the only page entry of a file."""
    declared = int((tif.imagej_metadata or {}).get("images", 1))
    if (tif.is_imagej or tif.is_shaped or tif.is_stk) and (found := tif.series[0]).kind in _STACKS:
        declared = found.size // page.size
    if declared > 1:
        if not _direct(page):
            raise UserError(f"{file}: declares {declared} images but has one page; save the stack again, uncompressed")
        left = file.stat().st_size - page.dataoffsets[0]
        check_size(file, (declared, *page.shape, 1), page.dtype.itemsize, max(left, 0))
    return max(1, declared)


def _direct(page: Any) -> bool:
    """Whether the values lie in the file as they are, in one piece."""
    return bool(page.is_contiguous) and page.fillorder == 1


def _plain(page: Any) -> bool:
    """Whether tifffile reads such pages without imagecodecs."""
    codecs = (_RAW, *_DEFLATE, _PACKBITS) if page.fillorder == 1 else (_RAW,)
    codec = page.compression in codecs and page.predictor in (1, 2)
    return codec and page.bitspersample in (1, 8, 16, 32, 64)


def _packed(page: Any) -> bool:
    """Whether the samples of a page fill no whole bytes, and nothing else is special."""
    simple = page.compression == _RAW and not page.is_tiled and page.fillorder == 1 and page.shaped[0] == 1
    return simple and page.shaped[1] == 1 and page.dtype.kind == "u" and 1 < page.bitspersample < 16


def _decoded(file: Path, tif: Any, page: Any) -> np.ndarray:
    """A page by tifffile, [samples, D, H, W, samples], after a look at what its segments inflate to."""
    if page.compression in _DEFLATE:
        tile = page.tilelength * page.tilewidth * max(1, page.tiledepth) * page.shaped[4] if page.is_tiled else 0
        most = max(page.nbytes, tile * page.dtype.itemsize)
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            tif.filehandle.seek(start)
            if len(zlib.decompressobj().decompress(tif.filehandle.read(count), most + 1)) > most:
                raise UserError(f"{file}: a part of it inflates to more than the {most} bytes of the page; damaged")
    with quiet(logging.getLogger("tifffile")):
        return np.asarray(page.asarray()).reshape(page.shaped)


@functools.lru_cache(maxsize=1)
def _volume(file: Path, offset: int, changed: int) -> np.ndarray:
    """A page of several planes that are not stored one by one; kept, because the next plane is likely to follow."""
    with _opened(file) as tif:
        tif.filehandle.seek(offset)
        return _decoded(file, tif, tifffile.TiffPage(tif, index=0))


def _unpacked(tif: Any, page: Any) -> np.ndarray:
    """Samples of 2 to 14 bits, packed in rows that end with a byte."""
    bits, (_, _, height, width, c) = page.bitspersample, page.shaped
    stride = -(-width * c * bits // 8)
    data = b"".join(_segments(tif, page))
    rows = np.frombuffer(data, np.uint8, height * stride).reshape(height, stride)
    weights = 2 ** np.arange(bits)[::-1]
    array = np.empty((height, width * c), np.uint16)
    for y, row in enumerate(rows):
        array[y] = np.unpackbits(row)[: width * c * bits].reshape(-1, bits) @ weights
    return array.reshape(height, width, c)


def _segments(tif: Any, page: Any) -> Iterator[bytes]:
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        tif.filehandle.seek(start)
        yield tif.filehandle.read(count)


def _inverted(wanted: Slice, array: np.ndarray) -> np.ndarray:
    """WhiteIsZero -> black is zero."""
    if wanted.dtype.kind == "b":
        return ~array.astype(bool)
    if wanted.dtype.kind == "u":
        return np.asarray(2**wanted.bits - 1, wanted.dtype) - array
    if wanted.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return 1 - array
    raise UserError(
        f"{wanted.file}: white is 0, and which {wanted.dtype} is black is not told; save it with black as 0"
    )


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, C] as it is shown, by TIFF's and EXIF's Orientation."""
    array = array.swapaxes(0, 1) if orientation > 4 else array
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]
