"""Small files that are large when unpacked: refused by their headers, before memory is taken; right ones are read."""

import gzip
import io
import struct
import time
import tracemalloc
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
from medical import write_nifti, write_slice
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.images import HOUNSFIELD, open_source, read_images
from padis_jax.images.limit import set_max_memory
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.runs.batch_job import read_sinogram

BIG = 1200  # its square of doubles is 11 MB, and a few kilobytes on the disk
LIMIT = "1M"


@pytest.fixture(autouse=True)
def limit():
    set_max_memory(LIMIT)
    yield
    set_max_memory(None)


def npz(path, shape=(BIG, BIG), name="volume", header=None, how=zipfile.ZIP_DEFLATED):
    start = str({"descr": "<f8", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", how) as archive:
        data = b"\x93NUMPY\1\0" + struct.pack("<H", len(start)) + start + bytes(8 * int(np.prod(shape)))
        if header:
            data = b"\x93NUMPY\2\0" + struct.pack("<I", header) + b" " * header
        archive.writestr(f"{name}.npy", data)
    return path


def nifti(path, offset=0):
    data = bytearray(nibabel.Nifti1Image(np.zeros((BIG, BIG, 2), np.int16), np.eye(4)).to_bytes())
    if offset:
        data[108:112] = np.array([offset + 352], "<f4").tobytes()
        data[348:360] = struct.pack("<4sII", b"\1\0\0\0", offset, 6)
        data[360:360] = bytes(offset)
    path.write_bytes(gzip.compress(bytes(data)))
    return path


def deflated(path, rows, stored, **fields):
    """A deflated DICOM file of `rows` rows, whose stream holds `stored` bytes of pixels."""
    values = np.full((6, 5), -1000)
    data = pydicom.dcmread(write_slice(path, values, **fields))
    data.Rows, data.Columns, data.PixelData = rows, rows, bytes(stored)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def encapsulated(path, syntax, rows, frame):
    """A DICOM file of `rows` rows, whose compressed frame is of another size."""
    data = pydicom.dcmread(write_slice(path, np.full((6, 5), -1000)))
    data.Rows, data.Columns, data.PixelData = rows, 5, pydicom.encaps.encapsulate([frame])
    data["PixelData"].VR, data.file_meta.TransferSyntaxUID = "OB", syntax
    if syntax == pydicom.uid.JPEGBaseline8Bit:
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def picture(form, values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, form, **({"no_jp2": True} if form == "JPEG2000" else {}))
    return buffer.getvalue()


def runs(count):
    """A frame of RLE, of two segments that unpack to `count` zeros each."""
    packed = b"\x81\0" * (count // 128) + bytes([1 - count % 128 & 255, 0] if count % 128 > 1 else [])
    return struct.pack("<16I", 2, 64, 64 + len(packed), *[0] * 13) + 2 * packed


def mat(path, **arrays):
    scipy.io.savemat(path, arrays or {"x": np.zeros((BIG, BIG))}, do_compression=True)
    return path


def lying_mat(path, *, name=4, values=48):
    """A variable of 2 x 3 doubles whose stream goes on: a name, or values, of many more bytes."""
    text = b"x" * name + bytes(-name % 8)
    parts = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 2, 3)
    parts += struct.pack("<II", 1, name) + text + struct.pack("<II", 9, values) + bytes(values)
    element = zlib.compress(struct.pack("<II", 14, len(parts)) + parts)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    path.write_bytes(head + struct.pack("<II", 15, len(element)) + element)
    return path


def hdf5(path, chunks=(1, BIG, BIG), shape=(2, BIG, BIG)):
    with h5py.File(path, "w") as file:
        file.create_dataset("sinogram", data=np.zeros(shape), chunks=chunks, compression="gzip")
    return path


def scan(path):
    write_geometry(path.parent / "g.json", ScanGeometry("parallel", tuple(map(float, range(BIG))), "degrees", BIG, 1.0))
    return load_scan(MeasurementConfig(path=str(path), geometry=str(path.parent / "g.json")))


NUMBERS = r"takes \d+ bytes of memory when decoded \(.*\), over the limit of 1048576"
BOMBS = {
    "npz": (lambda d: npz(d / "x.npz"), read_images, NUMBERS),
    "npz header": (lambda d: npz(d / "x.npz", header=2**22), read_images, "header of an array is longer than any"),
    "npz bz2": (lambda d: npz(d / "x.npz", how=zipfile.ZIP_BZIP2), read_images, "a way that NumPy does not write"),
    "npz scan": (lambda d: npz(d / "x.npz", name="sinogram"), scan, NUMBERS),
    "batch item": (
        lambda d: npz(d / "x.npz", name="sinogram"),
        lambda p: read_sinogram(p, (2, 3)),
        "has shape .1200, 1200",
    ),
    "right batch item": (lambda d: npz(d / "x.npz", name="sinogram"), lambda p: read_sinogram(p, (BIG, BIG)), NUMBERS),
    "nii.gz": (lambda d: nifti(d / "x.nii.gz"), read_images, NUMBERS),
    "nii.gz extension": (lambda d: nifti(d / "x.nii.gz", offset=2**25), read_images, "its values begin at byte 3.3"),
    "dicom": (lambda d: deflated(d / "x.dcm", BIG, 2 * BIG * BIG), read_images, NUMBERS),
    "dicom header": (lambda d: deflated(d / "x.dcm", 6, 72, PatientComments="x" * 2**25), read_images, "x.dcm: "),
    "dicom RLE": (
        lambda d: encapsulated(d / "x.dcm", pydicom.uid.RLELossless, 6, runs(BIG * BIG)),
        read_images,
        "frame 0 unpacks to more than the 60 bytes of 6 x 5 pixels",
    ),
    "dicom JPEG": (
        lambda d: encapsulated(
            d / "x.dcm", pydicom.uid.JPEGBaseline8Bit, 6, picture("JPEG", np.zeros((BIG, BIG), np.uint8))
        ),
        read_images,
        r"frame 0 says \(1200, 1200\) pixels, the header \(6, 5\)",
    ),
    "dicom JPEG 2000": (
        lambda d: encapsulated(
            d / "x.dcm", pydicom.uid.JPEG2000Lossless, 6, picture("JPEG2000", np.zeros((BIG, BIG), np.uint16))
        ),
        read_images,
        r"frame 0 says \(1200, 1200\) pixels, the header \(6, 5\)",
    ),
    "mat": (lambda d: mat(d / "x.mat"), read_images, NUMBERS),
    "mat scan": (lambda d: mat(d / "x.mat"), scan, NUMBERS),
    "mat structure": (lambda d: mat(d / "x.mat", s={"sinogram": np.zeros((BIG, BIG))}), scan, NUMBERS),
    "mat name": (lambda d: lying_mat(d / "x.mat", name=2**22), read_images, "x.mat: not a readable .mat"),
    "mat values": (lambda d: lying_mat(d / "x.mat", values=2**22), read_images, "declares .* bytes"),
    "hdf5": (lambda d: hdf5(d / "x.h5"), read_images, NUMBERS),
    "hdf5 chunk": (lambda d: hdf5(d / "x.h5", (BIG, 5, 300), (BIG, 5, 300)), read_images, NUMBERS),
    "hdf5 scan": (lambda d: hdf5(d / "x.h5", (BIG, BIG), (BIG, BIG)), scan, NUMBERS),
}


@pytest.mark.parametrize("case", BOMBS)
def test_refused_by_the_header_with_both_numbers(tmp_path, case):
    make, read, message = BOMBS[case]
    path = make(tmp_path)
    assert path.stat().st_size < 2**20
    begin = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert peak < 2**26 and time.perf_counter() - begin < 5


def test_compressed_frames_that_fit_are_read(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 5), np.uint16)
    flat = np.full((6, 5), 77, np.uint8)
    for syntax, frame, values in (
        (pydicom.uid.RLELossless, runs(30), np.zeros((6, 5))),
        (pydicom.uid.JPEG2000Lossless, picture("JPEG2000", deep), deep),
        (pydicom.uid.JPEGBaseline8Bit, picture("JPEG", flat), flat),
    ):
        found = open_source(encapsulated(tmp_path / "x.dcm", syntax, 6, frame)).read(0)[..., 0]
        np.testing.assert_array_equal(found, values - 1024.0)


def test_what_fits_is_read(tmp_path):
    """Deflated DICOM, .nii.gz, compressed .mat, and a row of an HDF5 scan that is larger than the limit as a whole."""
    volume = np.arange(120).reshape(4, 6, 5).astype(np.int16) - 1000
    data = pydicom.dcmread(write_slice(tmp_path / "x.dcm", volume[0]))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "x.dcm", data, enforce_file_format=True)
    write_nifti(tmp_path / "x.nii.gz", volume)
    mat(tmp_path / "x.mat", x=volume.transpose(1, 2, 0))
    for name in ("x.dcm", "x.nii.gz", "x.mat"):
        images = read_images(tmp_path / name, window=HOUNSFIELD).images
        np.testing.assert_allclose(HOUNSFIELD.from_unit(images[0, ..., 0]), volume[0], atol=1e-3)
    assert read_images(deflated(tmp_path / "y.dcm", 6, 2**25)).images.shape == (1, 6, 6, 1)  # no more than its size
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("data", (200, 200, 200), "f4", chunks=(1, 200, 200), compression="gzip", fillvalue=0)
        file["data"][:, 7] = np.arange(200)
    write_geometry(tmp_path / "g.json", ScanGeometry("parallel", tuple(map(float, range(200))), "degrees", 200, 1.0))
    config = MeasurementConfig(
        path=str(tmp_path / "s.h5"), geometry=str(tmp_path / "g.json"), row=7, kind="line-integrals"
    )
    np.testing.assert_array_equal(load_scan(config).sinogram, np.tile(np.arange(200, dtype=np.float32), (200, 1)))
    set_max_memory("100K")
    with pytest.raises(UserError, match="over the limit of 102400"):
        load_scan(config)
