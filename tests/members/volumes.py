"""Arrays, NIfTI and DICOM of every type of values, scaled and not, in either order of bytes."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from medical import write_nifti, write_slice
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from members import Member, inspected
from members.pictures import RNG, SIZE, shown, stored

KIND = "bit depths"
SLOPE, INTERCEPT = 0.5, -7.0
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
SYNTAXES = {"implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian, "big": ExplicitVRBigEndian,
            "deflated": DeflatedExplicitVRLittleEndian, "RLE": RLELossless}  # fmt: skip
# Bits allocated, bits stored, highest bit, whether signed.
DEPTHS = ((8, 8, 7, 0), (8, 7, 6, 1), (16, 10, 9, 0), (16, 12, 11, 0), (16, 12, 11, 1), (16, 16, 15, 0),
          (16, 16, 15, 1), (32, 32, 31, 0), (32, 24, 23, 1))  # fmt: skip


def values_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values all over the range of a type, of which float32 and float64 hold all bits that are compared."""
    dtype = np.dtype(name)
    if dtype.kind == "f":
        return RNG.standard_normal(shape).astype(dtype)
    about = np.iinfo(dtype)
    return RNG.integers(about.min, about.max, shape, dtype, endpoint=True)


def volumes() -> Iterator[Member]:
    """NumPy and NIfTI."""
    for name, order, fortran in itertools.product(TYPES, "<>", (False, True)):
        values = values_of(name, (3, *SIZE)).astype(order + name)

        def npy(folder: Path, values=values, fortran=fortran) -> Path:  # type: ignore[no-untyped-def]
            np.save(folder / "x.npy", np.asfortranarray(values) if fortran else values)
            return folder / "x.npy"

        what = f"npy {order}{name}{', columns first' if fortran else ''}"
        yield Member(KIND, what, npy, stored, values[..., None], command=inspected)
    for name, order, packed, scaled in itertools.product(TYPES, "<>", (False, True), (False, True)):
        values, slope, intercept = values_of(name, (3, *SIZE)), *((0.25, -3.0) if scaled else (1.0, 0.0))

        def nifti(folder: Path, values=values, order=order, packed=packed, scaling=(slope, intercept)) -> Path:  # type: ignore[no-untyped-def]
            header = nibabel.Nifti1Header(endianness=order)
            header.set_data_dtype(values.dtype)
            image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([-2.0, -3.0, 4.0, 1.0]), header)
            data = bytearray(image.to_bytes())
            data[112:120] = np.array(scaling, f"{order}f4").tobytes()
            path = folder / ("x.nii.gz" if packed else "x.nii")
            path.write_bytes(gzip.compress(bytes(data), 1) if packed else bytes(data))
            return path

        right = (values.astype(np.float64) * slope + intercept)[..., None]
        what = f"NIfTI {order}{name}{', packed' if packed else ''}{', scaled' if scaled else ''}"
        yield Member(KIND, what, nifti, stored, right, command=inspected)
    values = values_of("i2", (4, *SIZE))
    codes = [a for a in itertools.product("LR", "AP", "SI")]
    for letters in codes:
        for axes in itertools.permutations(letters):
            name = "".join(axes)

            def turned(folder: Path, name=name) -> Path:  # type: ignore[no-untyped-def]
                return write_nifti(folder / "x.nii", values, axes=name)

            yield Member(KIND, f"NIfTI along {name}", turned, stored, values[..., None], command=inspected)


def slices() -> Iterator[Member]:
    """DICOM: transfer syntaxes and depths, with other bits set beside those of the value."""
    for depth, (name, syntax), padded in itertools.product(DEPTHS, SYNTAXES.items(), (False, True)):
        allocated, bits, _, signed = depth
        if allocated == 32 and (padded or name == "RLE"):  # the standard has no such thing
            continue
        low = -(2 ** (bits - 1)) if signed else 0
        values = RNG.integers(low, low + 2**bits, SIZE, np.int64)
        values[0, :2] = low, low + 2**bits - 1
        right = values * SLOPE + INTERCEPT
        if padded:
            right = np.where(values == low, -1000.0, right)

        def dicom(folder: Path, values=values, depth=depth, syntax=syntax, padded=padded) -> Path:  # type: ignore[no-untyped-def]
            allocated, bits, _, signed = depth
            path = write_slice(folder / "x.dcm", np.zeros(SIZE), slope=SLOPE, intercept=INTERCEPT)
            data = pydicom.dcmread(path)
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = depth
            dtype = np.dtype(f"{'>' if syntax == ExplicitVRBigEndian else '<'}{'i' if signed else 'u'}{allocated // 8}")
            if padded:
                data.add_new("PixelPaddingValue", "SS" if signed else "US", int(values.min()))
            pixels = values.astype(dtype)
            if allocated == 16 and bits < 16 and syntax != RLELossless:  # an old overlay
                marked = values.astype(np.uint16) & (2**bits - 1) | 2**15
                pixels = marked.astype(f"{dtype.str[0]}u2").view(dtype)
            data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
            data["PixelData"].VR = "OB" if allocated == 8 and syntax != ImplicitVRLittleEndian else "OW"
            if syntax == RLELossless:
                data.compress(RLELossless)
            else:
                data.file_meta.TransferSyntaxUID = syntax
            options = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}
            pydicom.dcmwrite(path, data, enforce_file_format=True, **({} if syntax == RLELossless else options))
            return path

        what = f"DICOM {name}, {bits} of {allocated} bits{', signed' if signed else ''}{', padding' if padded else ''}"
        yield Member(KIND, what, dicom, stored, shown(right), command=inspected)
