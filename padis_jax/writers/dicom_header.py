"""A CT header for images that come from no DICOM file: what the standard demands (PS3.3, A.3), and nothing invented.

Whose image it is and when it was taken is not known: those fields are there and empty, as the standard allows. The
image lies in the axial plane, centred on the origin of a frame of reference of its own, which is the rotation axis of
a measured scan.
"""

from __future__ import annotations

import uuid
from typing import Any

from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.writers.result import NOTICE

EMPTY = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
 StudyID PositionReferenceIndicator SliceThickness KVP AcquisitionNumber""".split()


def plain_header(pydicom: Any, source: ImageSet, index: int) -> Any:
    """The header of image `index`, still without pixels and without what `dicom` says of a derived image.

    Args:
      pydicom: the library.
      source: whose names tell what was measured (equal names, one study), and whose spacing is in the header.
      index: from 0.

    Raises:
      UserError: if the source has no spacing.
    """
    if source.spacing is None:
        raise UserError("a DICOM result needs a DICOM source, or the size of the pixels; use tiff or npz")
    between, rows, columns = source.spacing
    height, width = source.images.shape[1:3]
    header = pydicom.Dataset()
    for name in EMPTY:
        setattr(header, name, "")
    header.SOPClassUID = pydicom.uid.CTImageStorage
    header.SOPInstanceUID = uid(f"{source.names[0]} {index}")
    header.StudyInstanceUID, header.SeriesInstanceUID = uid(f"{source.names[0]} study"), uid(source.names[0])
    header.FrameOfReferenceUID = uid(f"{source.names[0]} frame")
    header.StudyDescription = f"{NOTICE}; {source.names[0]}"[:64]
    header.Modality, header.SeriesNumber, header.InstanceNumber = "CT", 0, index + 1
    header.PatientPosition, header.Manufacturer = "HFS", "padis_jax"
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    place = source.places[index] if source.places else index * between
    corner = [-(width - 1) / 2 * columns, -(height - 1) / 2 * rows, place]
    # Row 0 is the top, the patient's front, unless the rows run up.
    sense = -1 if source.rows_up else 1
    header.ImageOrientationPatient = [1, 0, 0, 0, sense, 0]
    header.ImagePositionPatient = [decimal(corner[0]), decimal(sense * corner[1]), decimal(sense * corner[2])]
    header.PixelSpacing = [decimal(rows), decimal(columns)]
    header.Rows, header.Columns = height, width
    return header


def uid(text: str) -> str:
    """An identifier of its own for each text, under 2.25, the root for UUIDs, which anyone may use."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def decimal(value: float) -> str:
    """A number as DICOM's decimal string, of at most 16 characters."""
    return f"{value:.9g}"
