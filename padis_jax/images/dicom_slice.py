"""One DICOM file: the header of each of its frames, and their values.

    value = RescaleSlope * stored + RescaleIntercept  (HU for CT)

An enhanced file holds a series: its functional groups give every frame the fields that a slice has (PS3.3, C.7.6.16).
Padding is not image: its pixels become air where values are in HU, else the smallest other value of the frame. In
MONOCHROME1 low values are white; values in HU do not depend on that, all others are turned into MONOCHROME2.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.dicom_frame import check_frame
from padis_jax.images.guard import MAX_SLICE, decoding, library
from padis_jax.images.limit import check_decoded_bytes
from padis_jax.window import HOUNSFIELD

_OTHERS = ("MR", "PT", "NM", "US")  # modalities whose values are never in HU
HEADER = 2**24  # bytes of a deflated file that are unpacked for its header
_TAGS = """SOPClassUID SeriesInstanceUID SeriesNumber SeriesDescription Modality Rows Columns NumberOfFrames
 SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored PixelRepresentation PixelPaddingValue
 PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit HighBit ModalityLUTSequence
 SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
 TransferSyntaxUID""".split()
_GROUPS = {  # what differs from frame to frame: the functional group that holds it in an enhanced file
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}


class Slice(NamedTuple):
    """What the header of one slice tells; `position` [3] and `orientation` [6] are None where it does not.

    `frame` counts from 0, and `frames` are those of the file. `padding` is the range of stored values that are no
    image; `mirror` is what a stored value and its MONOCHROME2 value add up to, where they differ. `other` is
    that of a `Source`.
    """

    file: Path
    frame: int
    frames: int
    series: str
    description: str
    modality: str
    rows: int
    columns: int
    dtype: np.dtype
    stored_bits: int
    slope: float
    intercept: float
    unit: str | None
    other: str
    position: np.ndarray | None
    orientation: np.ndarray | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    padding: tuple[float, float] | None
    mirror: int | None

    @property
    def name(self) -> str:
        """For messages."""
        return self.file.name if self.frames == 1 else f"{self.file.name} frame {self.frame}"


def read_headers(file: Path) -> list[Slice]:
    """The headers of all frames of a file.

    Raises:
      UserError: if it is no DICOM image of grey frames, or lacks what is needed.
    """
    pydicom = library("pydicom", "medical", "DICOM files")
    with decoding(file, "DICOM header"), opened(pydicom, file, HEADER) as (handle, bare):
        found = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=[*_TAGS, *_GROUPS], force=bare)
        rows, columns = int(found.get("Rows") or 0), int(found.get("Columns") or 0)
        frames, samples = int(found.get("NumberOfFrames") or 1), int(found.get("SamplesPerPixel") or 1)
        photometric, modality = str(found.get("PhotometricInterpretation", "")), str(found.get("Modality", ""))
        bits, signed = int(found.get("BitsAllocated") or 0), int(found.get("PixelRepresentation") or 0)
        stored_bits = int(found.get("BitsStored") or bits)
        high = int(found.get("HighBit") or stored_bits - 1)
        shared = next(iter(found.get("SharedFunctionalGroupsSequence") or []), None)
        groups = list(found.get("PerFrameFunctionalGroupsSequence") or [])
        padding = [_whole(found.get(name)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        floats = [found.get(name) for name in ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit")]
        series = str(found.get("SeriesInstanceUID", ""))
        description = " ".join(f"{found.get('SeriesNumber', '')} {found.get('SeriesDescription', '')}".split())
        unpacked = isinstance(handle, io.BytesIO)
        syntax = found.file_meta.get("TransferSyntaxUID")
    if not rows or not columns:
        raise UserError(f"{file}: a DICOM file without an image (no Rows and Columns); leave it out")
    if bits == 1:
        raise UserError(f"{file}: a segmentation, of 1 bit per pixel, not an image; leave it out")
    if rows * columns > MAX_SLICE or bits not in (8, 16, 32) or signed not in (0, 1) or not 0 < stored_bits <= bits:
        raise UserError(f"{file}: declares {rows} x {columns} pixels of {bits} bits; is it damaged?")
    if high != stored_bits - 1:
        raise UserError(
            f"{file}: its highest bit is {high} of {stored_bits}; shift its values down (HighBit {stored_bits - 1})"
        )
    if found.get("ModalityLUTSequence"):
        raise UserError(
            f"{file}: a Modality LUT, which is not read, says what its values mean; apply it (pydicom's "
            "apply_modality_lut), and save an array"
        )
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(
            f"{file}: photometric interpretation {photometric!r} with {samples} samples is not supported, only grey; "
            "leave out files that are not slices (a report?), or convert them with dcmtk's dcmj2pnm"
        )
    if frames != 1 and len(groups) != frames:
        raise UserError(
            f"{file}: has {frames} frames, and {len(groups)} functional groups that would say where each lies; save "
            "its frames as an array [frames, rows, columns] (pydicom's pixel_array and numpy.save), and name that"
        )
    if syntax is None:
        raise UserError(
            f"{file}: does not say how its pixels are stored (no file meta information); dcmtk's dcmconv adds it"
        )
    dtype = np.dtype(f"{'int' if signed else 'uint'}{bits}")
    at_once = frames if unpacked else 1
    check_decoded_bytes(file, at_once * rows * columns * dtype.itemsize, f"{at_once}x{rows}x{columns} of {dtype}")
    common = {
        "file": file,
        "frames": frames,
        "series": series,
        "description": description,
        "modality": modality,
        "rows": rows,
        "columns": columns,
        "dtype": dtype,
        "stored_bits": stored_bits,
        "padding": _range(padding, dtype) if floats[0] is None else _range(floats, np.dtype(np.float32)),
    }
    mirror = (-1 if signed else 2**stored_bits - 1) if photometric == "MONOCHROME1" else None
    with decoding(file, "DICOM header"):
        return [
            _frame(found, shared, groups[frame] if groups else None, mirror, common | {"frame": frame})
            for frame in range(frames)
        ]


def _frame(found: Any, shared: Any, own: Any, mirror: int | None, common: dict[str, Any]) -> Slice:
    """One frame, whose fields are its functional groups', those that all frames share, or the file's."""

    def get(name: str) -> Any:
        for holder in (own, shared):
            for item in (holder.get(_GROUPS[name]) or [])[:1] if holder is not None else []:
                if name in item:
                    return item[name].value
        return found.get(name)

    file = common["file"]
    scaling = [None if get(name) in (None, "") else float(get(name)) for name in ("RescaleSlope", "RescaleIntercept")]
    orientation, spacing = _numbers(get("ImageOrientationPatient"), 6), _numbers(get("PixelSpacing"), 2)
    thickness = None if get("SliceThickness") is None else float(get("SliceThickness"))
    rescale_type = str(get("RescaleType") or "").upper()
    if common["modality"] == "CT" and None in scaling:
        raise UserError(f"{file}: a CT slice without RescaleSlope and RescaleIntercept; its unit is unknown")
    slope, intercept = (1.0 if scaling[0] is None else scaling[0]), (scaling[1] or 0.0)
    if not (np.isfinite(slope) and slope != 0.0 and np.isfinite(intercept)):
        raise UserError(f"{file}: RescaleSlope {slope} or RescaleIntercept {intercept} is invalid; is it damaged?")
    if spacing is not None and not (spacing > 0.0).all():
        raise UserError(f"{file}: PixelSpacing {spacing.tolist()} must be positive; fix the header")
    if orientation is not None and not np.allclose(_gram(orientation), np.eye(2), atol=1e-2):
        raise UserError(f"{file}: ImageOrientationPatient {orientation.tolist()} is not a pair of directions")
    hounsfield = (common["modality"] == "CT" and rescale_type in ("", "HU")) or rescale_type == "HU"
    other = f"of modality {common['modality']}" if common["modality"] in _OTHERS and not hounsfield else ""
    if rescale_type not in ("", "US") and not rescale_type.startswith("HU"):  # US is unspecified
        other = f"in {rescale_type[:16]} (RescaleType)"
    return Slice(
        slope=slope,
        intercept=intercept,
        unit=HOUNSFIELD.unit if hounsfield else None,
        other=other,
        position=_numbers(get("ImagePositionPatient"), 3),
        orientation=orientation,
        pixel_spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
        thickness=thickness if thickness is not None and thickness > 0.0 and np.isfinite(thickness) else None,
        mirror=None if hounsfield else mirror,
        **common,
    )


def read_values(item: Slice) -> np.ndarray:
    """The rescaled values of a slice, float32 [H, W, 1]."""
    pydicom = library("pydicom", "medical", "DICOM files")
    most = HEADER + item.frames * item.rows * item.columns * item.dtype.itemsize
    what = "DICOM image (compressed ones may need pylibjpeg, or dcmdjpeg to unpack them)"

    def decode(**options: Any) -> np.ndarray:
        with decoding(item.file, what), opened(pydicom, item.file, most) as (handle, _):
            shape = item.rows, item.columns
            check_frame(pydicom, handle, item.frame, item.frames, shape, item.dtype.itemsize)
            handle.seek(0)
            pixels = np.asarray(pydicom.pixels.pixel_array(handle, index=item.frame, **options))
            if pixels.shape != shape:
                raise ValueError(f"{pixels.shape} pixels instead of {shape}")
        return pixels

    pixels = decode()
    padded = np.zeros(pixels.shape, bool)
    if item.padding is not None:
        low, high = item.padding
        bottom = -(2**item.stored_bits) // 2 if item.dtype.kind == "i" else 0
        within = bottom <= low and high < bottom + 2**item.stored_bits
        # Padding may use bits that no image value has, which decoding leaves out.
        raw = pixels if within or pixels.dtype.kind == "f" else decode(correct_unused_bits=False)
        padded = (raw >= low) & (raw <= high)
    exact = pixels.astype(np.float64)
    exact = exact if item.mirror is None else item.mirror - exact
    values = (exact * item.slope + item.intercept).astype(np.float32)
    if padded.any():
        air = -1000.0 if item.unit == HOUNSFIELD.unit else item.intercept if padded.all() else values[~padded].min()
        values[padded] = air
    return values[..., None]


@contextlib.contextmanager
def opened(pydicom: Any, file: Path, most: int) -> Iterator[tuple[BinaryIO, bool]]:
    """(the file, whether it is DICOM without its preamble); a deflated one unpacked, to at most `most` bytes.

    pydicom would unpack all of a deflated file before its first field is known.
    """
    reader = pydicom.filereader
    with open(file, "rb") as handle:
        start = handle.read(132)
        whole = start[128:] == b"DICM"
        bare = not whole and start[:2] in (b"\2\0", b"\10\0")
        handle.seek(132 if whole else 0)
        if whole or start[:2] == b"\2\0":
            begin = handle.tell()
            meta = reader.read_dataset(handle, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
            if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
                handle.seek(begin + 12 + int(meta.FileMetaInformationGroupLength))
                meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
                plain = io.BytesIO()
                plain.write(bytes(128) + b"DICM")
                pydicom.filewriter.write_file_meta_info(plain, pydicom.dataset.FileMetaDataset(meta), False)
                plain.write(zlib.decompressobj(-zlib.MAX_WBITS).decompress(handle.read(), most))
                plain.seek(0)
                yield plain, False
                return
        handle.seek(0)
        yield handle, bare


def _whole(value: Any) -> int | None:
    """An integer, which pydicom leaves as two bytes where it cannot tell its sign; None for none."""
    if value is None or value in ("", b""):
        return None
    return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)


def _range(padding: Sequence[float | None], dtype: np.dtype) -> tuple[float, float] | None:
    """The padding's lowest and highest value, as the pixels' type shows them."""
    first, last = padding
    if first is None:
        return None
    ends = np.array([first, first if last is None else last]).astype(dtype)
    return ends.min().item(), ends.max().item()


def _numbers(value: Any, count: int) -> np.ndarray | None:
    if value is None or value == "":
        return None
    numbers = np.array([float(entry) for entry in value])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not {count} finite numbers")
    return numbers


def _gram(orientation: np.ndarray) -> np.ndarray:
    pair = orientation.reshape(2, 3)
    return pair @ pair.T
