"""Small files of every format that are large when decoded, by an honest header or behind a modest one."""

from __future__ import annotations

import functools
import gzip
import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pydicom
import scipy.io
import tifffile
import torch_writer as tw
from medical import write_slice
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from members import EITHER, REFUSED, Member, inspected
from members.pictures import CODECS, chunk, stored, tiff
from padis_jax.conversion.torch_files import read_torch
from padis_jax.measurements.geometry import ScanGeometry, read_geometry, write_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.runs.batch_job import read_sinogram

KIND, LIMIT = "bombs", "32M"
SIDE = 11_000  # 121 million values: more than LIMIT and than members.MEMORY in one byte each
_PIXELS = (0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (3, 1)  # type of colour and bits of a PNG


@functools.cache
def zeros(count: int, how: str = "zlib") -> bytes:
    """`count` zero bytes, packed."""
    packer = zlib.compressobj(1, wbits={"zlib": 15, "raw": -15, "gzip": 31}[how])
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + packer.compress(bytes(count & 0xFFFFF)) + packer.flush()


def _png(colour: int, bits: int, side: int, inside: int) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", zeros(inside)) + chunk(b"IEND", b"")


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    text = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def _npz(path: Path, name: str, shape: tuple[int, ...], dtype: str, **more: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(f"{name}.npy", "w") as handle:
            handle.write(_npy_header(shape, dtype))
            left = int(np.prod(shape)) * np.dtype(dtype).itemsize
            while left:
                left -= handle.write(bytes(min(left, 2**24)))
        for key, value in more.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{key}.npy", buffer.getvalue())
    return path


def _nifti(path: Path, dtype: str, offset: int = 0) -> Path:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape((SIDE, SIDE // 4, 4))
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352 + offset
    data = b"".join(gzip.compress(part) for part in (header.binaryblock, bytes(4)))
    path.write_bytes(data + zeros(SIDE * SIDE * np.dtype(dtype).itemsize, "gzip"))
    return path


def _mat(path: Path, name: str, kind: int, itemsize: int, inside: int) -> Path:
    """A variable of SIDE x SIDE (or 2 x 3, if `inside`) values, whose stream holds what it says, or `inside` bytes."""
    shape, count = ((2, 3), inside) if inside else ((SIDE, SIDE // 4), SIDE * SIDE // 4 * itemsize)
    text = name.encode().ljust(-(-len(name) // 8) * 8, b"\0")
    parts = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, *shape)
    parts += struct.pack("<II", 1, len(name)) + text + struct.pack("<II", {6: 9, 7: 7, 11: 4, 9: 2}[kind], count)
    packer = zlib.compressobj(1)
    data = packer.compress(struct.pack("<II", 14, len(parts) + count) + parts)
    for _ in range(count >> 20):
        data += packer.compress(bytes(2**20))
    data += packer.compress(bytes(count & 0xFFFFF)) + packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    path.write_bytes(head + struct.pack("<II", 15, len(data)) + data)
    return path


def _hdf5(path: Path, dtype: str, chunks: tuple[int, ...] | None, name: str = "images") -> Path:
    with h5py.File(path, "w", userblock_size=512 if path.suffix == ".mat" else 0) as file:
        packing = {"compression": "gzip", "compression_opts": 1} if chunks else {}
        data = file.create_dataset(name, (2, SIDE, SIDE // 2), dtype, chunks=chunks, **packing)
        if chunks == (1, 1000, SIDE // 2):
            data.id.write_direct_chunk((0, 0, 0), zeros(1000 * SIDE // 2 * np.dtype(dtype).itemsize))
    return path


def _dicom(path: Path, syntax: Any, side: int, frame: bytes, **fields: Any) -> Path:
    data = pydicom.dcmread(write_slice(path, np.full((6, 5), -1000), **fields))
    data.Rows = data.Columns = side
    if syntax == JPEGBaseline8Bit:
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def _deflated(path: Path, side: int, inside: int) -> Path:
    """A deflated file: the header's own stream, then one of zeros, both of one deflate stream."""
    write_slice(path, np.full((6, 5), -1000))
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = side
    del data.PixelData
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    raw = out.getvalue()
    begin = 132 + 12 + int(pydicom.dcmread(io.BytesIO(raw)).file_meta.FileMetaInformationGroupLength)
    body = zlib.decompress(raw[begin:], -15) + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, inside)
    packer = zlib.compressobj(1, wbits=-15)
    stream = packer.compress(body)
    for _ in range(inside >> 20):
        stream += packer.compress(bytes(2**20))
    path.write_bytes(raw[:begin] + stream + packer.compress(bytes(inside & 0xFFFFF)) + packer.flush())
    return path


@functools.cache
def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(buffer, "JPEG", quality=10)
    return buffer.getvalue()


def _rle(count: int, segments: int = 2) -> bytes:
    """A frame of RLE whose segments hold `count` bytes each."""
    runs = b"\x81\0" * (count // 128)
    offsets = [64 + len(runs) * index for index in range(segments)]
    return struct.pack("<16I", segments, *offsets, *[0] * (15 - segments)) + runs * segments


def _scan(path: Path) -> Any:
    write_geometry(path.parent / "g.json", ScanGeometry("parallel", tuple(range(90)), "degrees", 96, 1.0))
    return load_scan(MeasurementConfig(path=str(path), geometry=str(path.parent / "g.json"))).sinogram


def members() -> Iterator[Member]:
    """All of them. What is larger inside than its header says may be read, if no more than that is inflated."""

    def bomb(name: str, file: str, make: Callable[[Path], object], read: Any = stored, right: Any = REFUSED) -> Member:
        def made(folder: Path) -> Path:
            make(folder / file)
            return folder / file

        return Member(KIND, name, made, read, right, command=inspected if read is stored else None, limit=LIMIT)

    for colour, bits in _PIXELS:
        side = SIDE if bits > 1 else 3 * SIDE
        row = 1 + -(-side * bits * (3 if colour == 2 else 1) // 8)
        yield bomb(f"PNG, colour {colour}, {bits} bits", "x.png",
                   lambda p, c=colour, b=bits, s=side, r=row: p.write_bytes(_png(c, b, s, r * s)))  # fmt: skip
        yield bomb(f"PNG, colour {colour}, {bits} bits, all of it in the stream", "x.png",
                   lambda p, c=colour, b=bits: p.write_bytes(_png(c, b, 16, 2**28)), right=EITHER)  # fmt: skip
    plain = _png(0, 8, 8, 72)
    for text, at in ((b"zTXt", -12), (b"iCCP", 33)):
        more = chunk(text, b"a\0\0" + zeros(2**28))
        yield bomb(f"PNG with a large {text.decode()}", "x.png",
                   lambda p, more=more, at=at: p.write_bytes(plain[:at] + more + plain[at:]), right=EITHER)  # fmt: skip
    yield bomb("JPEG", "x.jpg", lambda p: p.write_bytes(_jpeg()))
    yield bomb("JPEG called PNG", "x.png", lambda p: p.write_bytes(_jpeg()))
    for kind, codec in itertools.product(("u1", "u2", "f4"), ("zlib", "tiles", "volumetric")):
        options: dict[str, Any] = {"tile": (16, 4096, 4096) if codec == "volumetric" else (4096, 4096)}
        options = options if codec != "zlib" else {"rowsperstrip": 4096}

        def write(p: Path, kind: str = kind, options: Any = options, codec: str = codec) -> None:
            shape = (16, 4096, 4096) if codec == "volumetric" else (4096 * 4, 4096 * 4)
            data = (
                zeros(int(np.prod(options.get("tile", (4096, shape[1])))) * np.dtype(kind).itemsize) for _ in range(16)
            )
            pieces = iter(list(data)[: 1 if codec == "volumetric" else 4 if codec == "zlib" else 16])
            tifffile.imwrite(p, pieces, shape=shape, dtype=kind, compression="zlib", photometric="minisblack",
                             volumetric=codec == "volumetric", **options)  # fmt: skip

        yield bomb(f"TIFF {codec} of {kind}", "x.tif", write)
    for codec in ("lzw", "deflate", "packbits"):
        yield bomb(f"TIFF of {codec} whose size is larger than its strip", "x.tif", lambda p, c=codec: p.write_bytes(
            tiff(np.zeros((9, 9), np.uint8), codec=c).replace(struct.pack("<HHII", 256, 4, 1, 9),
                 struct.pack("<HHII", 256, 4, 1, 2**22)).replace(struct.pack("<HHII", 257, 4, 1, 9),
                 struct.pack("<HHII", 257, 4, 1, 2**10))))  # fmt: skip
    assert set(CODECS) >= {"lzw", "deflate", "packbits"}
    for kind in ("u1", "i2", "f4"):
        yield bomb(f"nii.gz of {kind}", "x.nii.gz", lambda p, k=kind: _nifti(p, k))
        yield bomb(f"npz of {kind}", "x.npz", lambda p, k=kind: _npz(p, "volume", (4, SIDE, SIDE // 4), f"<{k}"))
        yield bomb(f"npz of {kind}, named", "x.npz", lambda p, k=kind: _npz(p, "a", (SIDE, SIDE), f"<{k}"))
        yield bomb(f"npz scan of {kind}", "x.npz", lambda p, k=kind: _npz(p, "sinogram", (SIDE, SIDE), f"<{k}"), _scan)
        yield bomb(f"npz batch item of {kind}", "x.npz", lambda p, k=kind: _npz(p, "sinogram", (SIDE, SIDE), f"<{k}"),
                   lambda p: read_sinogram(p, (SIDE, SIDE)))  # fmt: skip
    for name in ("spacing", "unit"):
        yield bomb(f"npz with a large {name}", "x.npz", lambda p, n=name: _npz(
            p, n, (SIDE, SIDE), "<f4", volume=np.zeros((1, 9, 9), np.int16)), right=EITHER)  # fmt: skip
    for name in ("flat", "dark", "angles", "theta", "noise_sigma"):
        yield bomb(f"npz scan with a large {name}", "x.npz", lambda p, n=name: _npz(
            p, n, (SIDE, SIDE), "<f4", sinogram=np.ones((90, 96), np.float32)), _scan, EITHER)  # fmt: skip
        yield bomb(f"npz batch item with a large {name}", "x.npz", lambda p, n=name: _npz(
            p, n, (SIDE, SIDE), "<f4", sinogram=np.ones((90, 96), np.float32)),
            lambda p: read_sinogram(p, (90, 96)), EITHER)  # fmt: skip
    yield bomb("nii.gz extensions", "x.nii.gz", lambda p: _nifti(p, "u1", 2**28))
    for kind, itemsize in ((6, 8), (7, 4), (11, 2), (9, 1)):
        yield bomb(f".mat of class {kind}", "x.mat", lambda p, k=kind, s=itemsize: _mat(p, "x", k, 4 * s, 0))
        yield bomb(
            f".mat scan of class {kind}", "x.mat", lambda p, k=kind, s=itemsize: _mat(p, "x", k, 4 * s, 0), _scan
        )
        yield bomb(f".mat of class {kind}, larger inside", "x.mat", lambda p, k=kind: _mat(p, "x", k, 1, 2**28))
    yield bomb(".mat structure", "x.mat", lambda p: scipy.io.savemat(
        p, {"s": {"sinogram": np.zeros((SIDE, SIDE // 2), np.uint8)}}, do_compression=True), _scan)  # fmt: skip
    for kind, chunks in itertools.product(("u1", "f4"), ((1, SIDE, SIDE // 2), (1, 1000, SIDE // 2), None)):
        small = chunks is None
        yield bomb(f"HDF5 of {kind} in {chunks}", "x.h5", lambda p, k=kind, c=chunks: _hdf5(p, k, c), right=REFUSED)
        yield bomb(f"HDF5 scan of {kind} in {chunks}", "x.h5",
                   lambda p, k=kind, c=chunks: _hdf5(p, k, c, "data"), _scan)  # fmt: skip
        if not small:
            yield bomb(f".mat 7.3 of {kind} in {chunks}", "x.mat", lambda p, k=kind, c=chunks: _hdf5(p, k, c))
    for side, inside in ((SIDE, 2 * SIDE * SIDE), (6, 2**28)):
        right = REFUSED if side > 6 else EITHER
        yield bomb(f"deflated DICOM of {side}", "x.dcm", lambda p, s=side, i=inside: _deflated(p, s, i), right=right)
        yield bomb(f"RLE DICOM of {side}", "x.dcm", lambda p, s=side, i=inside: _dicom(
            p, RLELossless, s, _rle(i // 2)), right=right)  # fmt: skip
        yield bomb(f"JPEG DICOM of {side}", "x.dcm", lambda p, s=side: _dicom(
            p, JPEGBaseline8Bit, s, _jpeg()))  # fmt: skip
    yield bomb("pickle of a network", "x.pt", lambda p: p.write_bytes(tw.bomb(2**28)), read_torch)
    for item, count in itertools.product((b"0", b"[]", b"{}", b'""'), (2**18, 2**24)):
        text = b'{"beam": "parallel", "bins": 3, "angles": [' + (item + b",") * count + b"0]}"
        yield bomb(f"geometry of {count} {item.decode()}", "g.json", lambda p, t=text: p.write_bytes(t), read_geometry)
