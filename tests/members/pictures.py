"""Pictures by hand: TIFF and PNG of every depth, compression and orientation, with the values that were put in."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import png
from PIL import Image

from members import Member, inspected, written
from padis_jax.images import open_source

RNG = np.random.default_rng(27)
SIZE = (9, 13)
TURNS = {  # EXIF's and TIFF's Orientation: stored -> shown
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def stored(path: Path) -> np.ndarray:
    """All values behind a path, [N, H, W, C], as the file has them."""
    source = open_source(path)
    found = np.stack([source.read(index) for index in range(source.shape[0])])
    assert found.shape == source.shape, f"{found.shape} instead of {source.shape}"
    return found


def white(path: Path) -> np.ndarray:
    """As `stored`, divided by what is white."""
    return stored(path) / open_source(path).full  # type: ignore[operator]


def shown(values: np.ndarray) -> np.ndarray:
    """[H, W] or [H, W, 3] -> [1, H, W, C]."""
    return values[None] if values.ndim == 3 else values[None, ..., None]


def lzw(data: bytes) -> bytes:
    """TIFF's LZW of codes of 9 bits alone: the table is cleared before it needs more."""
    codes = [code for at in range(0, len(data), 250) for code in (256, *data[at : at + 250])] + [257]
    bits = "".join(f"{code:09b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def packbits(data: bytes) -> bytes:
    """Runs of 2 where there are some, else literals."""
    parts = [data[at : at + 100] for at in range(0, len(data), 100)]
    return b"".join(
        bytes([257 - len(p), p[0]]) if len(p) > 1 and len(set(p)) == 1 else bytes([len(p) - 1]) + p for p in parts
    )


CODECS = {"raw": (1, bytes), "lzw": (5, lzw), "deflate": (8, zlib.compress), "old deflate": (32946, zlib.compress),
          "packbits": (32773, packbits)}  # fmt: skip
_SAMPLE = {"u": 1, "i": 2, "f": 3}


def packed(values: np.ndarray, bits: int, order: str) -> bytes:
    """Rows that end with a byte."""
    rows = values.reshape(len(values), -1)
    if bits in (8, 16, 32, 64):
        return rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    text = ("".join(f"{v:0{bits}b}" for v in row) for row in rows.tolist())
    text = (row + "0" * (-len(row) % 8) for row in text)
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in text)


def tiff(values: np.ndarray, *, bits: int = 0, codec: str = "raw", order: str = "<", photometric: int | None = None,
         orientation: int = 1, predictor: bool = False, strips: int = 1, fill_order: int = 1,
         codecs: dict[str, tuple[int, Callable[[bytes], bytes]]] = CODECS) -> bytes:  # fmt: skip
    """A TIFF file of one page, tag by tag."""
    bits = bits or 8 * values.dtype.itemsize
    height, width, samples = (*values.shape, 1)[:3]
    compression, encode = codecs[codec]
    kept = values
    if predictor:
        kept = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))
    rows = -(-height // strips)
    data = [encode(packed(kept[at : at + rows], bits, order)) for at in range(0, height, rows)]
    photometric = (1 if samples == 1 else 2) if photometric is None else photometric
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * samples), 259: ("H", [compression]),
        262: ("H", [photometric]), 266: ("H", [fill_order]), 273: ("I", [0] * len(data)), 274: ("H", [orientation]),
        277: ("H", [samples]),
        278: ("I", [rows]), 279: ("I", [len(part) for part in data]), 317: ("H", [2 if predictor else 1]),
        339: ("H", [_SAMPLE[values.dtype.kind]] * samples),
    }  # fmt: skip
    beyond = 8 + 2 + 12 * len(entries) + 4
    start = beyond + sum(
        struct.calcsize(kind) * len(n) for kind, n in entries.values() if struct.calcsize(kind) * len(n) > 4
    )
    entries[273] = ("I", [start + sum(map(len, data[:i])) for i in range(len(data))])
    listed, extra = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        value = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(value) > 4:
            value, extra = struct.pack(f"{order}I", beyond + len(extra)), extra + value
        listed += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(numbers)) + value.ljust(4, b"\0")
    magic = b"II" if order == "<" else b"MM"
    head = magic + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return head + listed + bytes(4) + extra + b"".join(data)


def noise(bits: int, colour: bool = False) -> np.ndarray:
    """Whole numbers of that many bits, of which no two rows or columns are alike."""
    shape = (*SIZE, 3) if colour else SIZE
    return RNG.integers(0, 2**bits, shape, np.uint64).astype(f"u{max(1, 2 ** (bits - 1).bit_length() // 8)}")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(folder: Path, values: np.ndarray, bits: int, orientation: int = 1, **options: object) -> bytes:
    """A PNG by pypng, with its orientation."""
    with open(folder / "made", "wb") as handle:
        writer = png.Writer(values.shape[1], values.shape[0], greyscale=values.ndim == 2, bitdepth=bits, **options)
        writer.write(handle, values.reshape(len(values), -1).tolist())
    data = (folder / "made").read_bytes()
    (folder / "made").unlink()
    exif = Image.Exif()
    exif[274] = orientation
    return data[:33] + (chunk(b"eXIf", exif.tobytes()[6:]) if orientation > 1 else b"") + data[33:]


def orientations() -> Iterator[Member]:
    """1 to 8 in PNG, JPEG and TIFF, at 8 and 16 bits, grey and colour, in every compression."""
    kind = "orientations"
    for turn, bits, colour in itertools.product(TURNS, (8, 16), (False, True)):
        values = noise(bits, colour)
        what = f"{turn}, {bits} bits, {'colour' if colour else 'grey'}"
        right = shown(TURNS[turn](values))

        def make(folder: Path, values=values, bits=bits, turn=turn) -> Path:  # type: ignore[no-untyped-def]
            return written(png_bytes(folder, values, bits, turn), "x.png")(folder)

        yield Member(kind, f"PNG {what}", make, stored, right, command=inspected)
        for codec in CODECS:
            order = "<>"[(turn + bits + colour) % 2]
            data = tiff(values, codec=codec, order=order, orientation=turn, strips=1 + turn % 2,
                        predictor=codec in ("lzw", "deflate") and turn % 3 == 0)  # fmt: skip
            yield Member(kind, f"TIFF {codec} {order} {what}", written(data, "x.tif"), stored, right, command=inspected)
        if bits == 8:
            smooth = Image.fromarray(values).resize((SIZE[1] * 3, SIZE[0] * 3), Image.Resampling.BICUBIC)

            def jpeg(folder: Path, smooth=smooth, turn=turn) -> Path:  # type: ignore[no-untyped-def]
                exif = Image.Exif()
                exif[274] = turn
                smooth.save(folder / "x.jpg", exif=exif, quality=95)
                return folder / "x.jpg"

            def turned(path: Path, turn=turn) -> np.ndarray:  # type: ignore[no-untyped-def]
                with Image.open(path, formats=["JPEG"]) as opened:
                    right = shown(TURNS[turn](np.asarray(opened)))
                return stored(path).astype(float) - right

            zero = np.zeros(shown(TURNS[turn](np.asarray(smooth))).shape)
            yield Member(kind, f"JPEG {what}", jpeg, turned, zero)


def depths() -> Iterator[Member]:
    """Every depth and type of TIFF and PNG, black or white at 0."""
    kind = "bit depths"
    for bits, codec, photometric in itertools.product((1, 2, 3, 4, 6, 8, 10, 12, 14, 16), CODECS, (0, 1)):
        values = noise(bits)
        right = shown(values if photometric else 2**bits - 1 - values.astype(int)) / (2**bits - 1)
        data = tiff(values, bits=bits, codec=codec, photometric=photometric, order="<>"[bits // 2 % 2])
        hard = bits in (3, 6) or (bits not in (1, 8, 16) and codec != "raw")  # nobody writes these
        name = f"TIFF {bits} bits, {codec}, photometric {photometric}"
        yield Member(kind, name, written(data, "x.tif"), white, right, refusable=hard)
    for name, codec, order in itertools.product(("i1", "i2", "i4", "i8", "u4", "u8", "f2", "f4", "f8"), CODECS, "<>"):
        dtype = np.dtype(name)
        values = RNG.standard_normal(SIZE) if dtype.kind == "f" else RNG.integers(
            np.iinfo(dtype).min, np.iinfo(dtype).max, SIZE, dtype)  # fmt: skip
        values = np.asarray(values, dtype)
        data = tiff(
            values, codec=codec, order=order, predictor=dtype.kind != "f" and codec == "deflate" and order == ">"
        )
        hard = codec == "lzw" and name in ("i8", "u4", "u8", "f2", "f8")
        what = f"TIFF {name}, {codec}, {order}"
        yield Member(kind, what, written(data, "x.tif"), stored, shown(values), hard, inspected)
    for bits, interlaced, colour in itertools.product((1, 2, 4, 8, 16), (False, True), (False, True)):
        if colour and bits < 8:
            continue
        values = noise(bits, colour)

        def make(folder: Path, values=values, bits=bits, interlaced=interlaced) -> Path:  # type: ignore[no-untyped-def]
            return written(png_bytes(folder, values, bits, interlace=interlaced), "x.png")(folder)

        what = f"PNG {bits} bits, {'colour' if colour else 'grey'}{', interlaced' if interlaced else ''}"
        yield Member(kind, what, make, white, shown(values) / (2**bits - 1), False, None)
    for bits in (1, 2, 4, 8):
        values, palette = noise(bits), RNG.integers(0, 256, (2**bits, 3))

        def palettes(folder: Path, values=values, bits=bits, palette=palette) -> Path:  # type: ignore[no-untyped-def]
            colours = [tuple(map(int, entry)) for entry in palette]
            with open(folder / "x.png", "wb") as handle:
                png.Writer(SIZE[1], SIZE[0], bitdepth=bits, palette=colours).write(handle, values.tolist())
            return folder / "x.png"

        yield Member(kind, f"PNG palette of {bits} bits", palettes, stored, shown(palette[values]), command=inspected)
