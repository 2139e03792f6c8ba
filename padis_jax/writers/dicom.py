"""DICOM: the source's header, slice by slice, with new pixels that say of themselves that they are derived.

A result of no image file, such as a measured scan, gets the header of `dicom_header`.

    stored = round(v / RescaleSlope) as int16,  RescaleIntercept = 0

The slope is the smallest power of ten that lets the largest value fit, so values within 3276 HU are kept to 0.05 HU.
Patient (unless the result is anonymous), study, frame of reference and geometry stay; series and instances get new
identifiers, which depend on the source and on the pixels alone, so that the same result has the same files.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from typing import Any

import numpy as np

import padis_jax
from padis_jax.errors import UserError
from padis_jax.images.dicom_slice import HEADER, opened
from padis_jax.images.guard import decoding, library
from padis_jax.writers.anonymise import anonymise, remove_graphics
from padis_jax.writers.dicom_header import plain_header, uid
from padis_jax.writers.result import Result

# What described the source's pixels and does not describe the new ones.
_STALE = """PixelPaddingValue PixelPaddingRangeLimit FloatPixelPaddingValue FloatPixelPaddingRangeLimit
 RealWorldValueMappingSequence SmallestImagePixelValue LargestImagePixelValue
 SmallestPixelValueInSeries LargestPixelValueInSeries ModalityLUTSequence VOILUTSequence VOILUTFunction
 PresentationLUTShape WindowCenterWidthExplanation IconImageSequence DigitalSignaturesSequence MACParametersSequence
 InstanceCreationDate InstanceCreationTime ExtendedOffsetTable ExtendedOffsetTableLengths""".split()


def dicom_files(result: Result) -> list[bytes]:
    """One DICOM file for each image, in order.

    Raises:
      UserError: if the images come from files that are not DICOM, or one of these has gone or changed its size; for
        colour, and for images of no file that have no spacing.
    """
    origins = result.source.origins
    pydicom = library("pydicom", "medical", "DICOM files")
    if result.values.shape[-1] != 1:
        raise UserError("colour results cannot be written as DICOM; use png, tiff or npz")
    headers = [] if origins else [plain_header(pydicom, result.source, i) for i in range(len(result.values))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for origin in origins:
            with decoding(origin.file, "DICOM header that is to be carried over"):
                try:
                    with opened(pydicom, origin.file, HEADER) as (handle, bare):
                        header = pydicom.dcmread(handle, stop_before_pixels=True, force=bare)
                except pydicom.errors.InvalidDicomError as error:
                    raise UserError(
                        f"{origin.file}: is not DICOM, and DICOM results need its header; use nifti, tiff or npz"
                    ) from error
                if "PerFrameFunctionalGroupsSequence" in header:
                    raise UserError(
                        f"{origin.file}: is an enhanced file, whose header is not that of a slice; use nifti, tiff or "
                        "npz"
                    )
                if (int(header.Rows), int(header.Columns)) != result.values.shape[1:3]:
                    raise UserError(f"{origin.file}: has {header.Rows} x {header.Columns} pixels, unlike the result")
            headers.append(header)
        slope = _slope(float(np.abs(result.values).max()))
        digest = hashlib.sha256(np.ascontiguousarray(result.values).tobytes() + result.description.encode()).hexdigest()
        encoded = []
        for index, (header, values) in enumerate(zip(headers, result.values, strict=True)):
            where = origins[index].file if origins else result.source.names[index]
            with decoding(where, "DICOM header that is to be carried over"):
                _derive(pydicom, header, values[..., 0], result, slope, digest)
                buffer = io.BytesIO()
                pydicom.dcmwrite(buffer, header, enforce_file_format=True)
            encoded.append(buffer.getvalue())
    return encoded


def _slope(largest: float) -> float:
    """The smallest power of ten, at least 1e-6, with largest / slope <= 32767."""
    return 10.0 ** max(-6, math.ceil(math.log10(max(largest, 1e-30) / 32767.0) - 1e-12))


def _derive(pydicom: Any, header: Any, values: np.ndarray, result: Result, slope: float, digest: str) -> None:
    """Turns the header of a source slice into a derived image of these values, in place."""
    for name in _STALE:
        if name in header:
            delattr(header, name)
    header.remove_private_tags()
    remove_graphics(header)
    if result.anonymous:
        anonymise(pydicom, header)

    source_class, source_instance = str(header.SOPClassUID), str(header.SOPInstanceUID)
    header.SeriesInstanceUID = uid(f"{header.SeriesInstanceUID} {digest}")
    header.SOPInstanceUID = uid(f"{source_instance} {digest}")
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian

    kept = list(header.get("ImageType") or [])[2:]
    header.ImageType = ["DERIVED", "SECONDARY", *kept]
    about = result.description  # begins with what must not be cut off
    header.DerivationDescription = about[:1024]
    comments = header.get("ImageComments")
    header.ImageComments = (f"{about}; of the source: {comments}" if comments else about)[:10240]
    number = header.get("SeriesNumber")
    header.SeriesNumber = 1000 + int(number or 0)
    header.SeriesDescription = " ".join(f"{about}; {header.get('SeriesDescription', '')}".split())[:64].rstrip("; ")
    if result.source.origins:
        header.SourceImageSequence = [_reference(pydicom, source_class, source_instance)]
    header.ContributingEquipmentSequence = [
        *(header.get("ContributingEquipmentSequence") or []),
        _equipment(pydicom),
    ]

    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = values.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleSlope, header.RescaleIntercept = f"{slope:g}", "0"
    header.RescaleType = "HU" if result.window.unit == "HU" else "US"
    header.WindowCenter = f"{(result.window.low + result.window.high) / 2:g}"
    header.WindowWidth = f"{result.window.high - result.window.low:g}"
    header.PixelData = np.rint(values.astype(np.float64) / slope).astype("<i2").tobytes()
    header["PixelData"].VR = "OW"


def _reference(pydicom: Any, sop_class: str, instance: str) -> Any:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def _equipment(pydicom: Any) -> Any:
    purpose = pydicom.Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    item = pydicom.Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = "padis_jax", "padis_jax"
    item.SoftwareVersions = padis_jax.__version__
    return item
