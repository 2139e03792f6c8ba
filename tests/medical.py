"""Medical files for tests, made by the libraries that read them elsewhere."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)


def ramp(slices=4, rows=6, columns=5):
    """HU that differ in every voxel: no permutation or flip goes unseen."""
    return (np.arange(slices * rows * columns).reshape(slices, rows, columns) * 7 - 1000).astype(np.int16)


def write_slice(path, values, *, z=0.0, series="1.2.3", slope=1.0, intercept=-1024.0, **fields):
    """One CT slice of HU values; `fields` set or, if None, remove fields of the header."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(path)])
    data.PatientName, data.PatientID = "Phantom^A", "7"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.1", series, "1.2.2"
    data.Modality, data.SeriesNumber, data.SeriesDescription = "CT", 3, "axial thin"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImagePositionPatient, data.ImageOrientationPatient = [10.0, 20.0, z], list(AXIAL)
    data.PixelSpacing, data.SliceThickness = [0.9, 0.8], 1.5
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = slope, intercept, "HU"
    data.PixelData = np.rint((values.astype(float) - intercept) / slope).astype("<u2").tobytes()
    data.add_new(0x00091010, "LO", "private")
    for name, value in fields.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_series(folder, volume, *, spacing=1.5, series="1.2.3", **fields):
    """A CT series; names of files are in the reverse order of positions."""
    for index, values in enumerate(volume):
        write_slice(folder / f"{len(volume) - index:03d}.dcm", values, z=index * spacing, series=series, **fields)
    return folder


def write_enhanced(path, volume, *, order, modality="CT"):
    """The named slices of a volume as the frames of one enhanced file."""
    values = np.stack([volume[index] for index in order]).astype(float)
    slopes = [0.5**index if modality == "CT" else 1.0 for index in order]
    stored = [np.rint((v + 1024) / s).astype("<u2") for v, s in zip(values, slopes, strict=True)]
    data = pydicom.dcmread(write_slice(path, volume[0], Modality=modality))
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = {
        "CT": "1.2.840.10008.5.1.4.1.1.2.1",
        "MR": "1.2.840.10008.5.1.4.1.1.4.1",
    }[modality]
    for (
        name
    ) in "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness RescaleSlope RescaleType".split():
        delattr(data, name)
    del data.RescaleIntercept
    data.NumberOfFrames, data.PixelData = len(order), np.stack(stored).tobytes()
    shared, frames = pydicom.Dataset(), []
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(AXIAL))]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.9, 0.8], SliceThickness=1.5)]
    for index, slope in zip(order, slopes, strict=True):
        frame = _item(PlanePositionSequence=[_item(ImagePositionPatient=[10.0, 20.0, 1.5 * index])])
        if modality == "CT":
            scaling = _item(RescaleSlope=slope, RescaleIntercept=-1024.0, RescaleType="HU")
            frame.PixelValueTransformationSequence = [scaling]
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def _item(**fields):
    item = pydicom.Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def write_nifti(path, volume, *, axes="LPS", spacing=(1.5, 0.9, 0.8), slope=None):
    """An axial volume [slices, rows to the back, columns to the left], stored along the named axes (RAS, SAL ...)."""
    between, rows, columns = spacing
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-columns, -rows, between, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    if slope is not None:
        scaled = np.rint(np.asarray(turned.dataobj) / slope).astype(np.int16)
        data = bytearray(nibabel.Nifti1Image(scaled, turned.affine).to_bytes())
        data[112:120] = np.array([slope, 0.0], "<f4").tobytes()  # scl_slope, scl_inter
        path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))
        return path
    nibabel.save(turned, path)
    return path
