"""Good files of every format, what accidents make of them, and files with wrong types, no values and huge headers."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import nibabel
import numpy as np
import png
import pydicom
import scipy.io
import tifffile
import torch_writer as tw
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from tiny import write_weights

from padis_jax.conversion.torch_files import read_torch
from padis_jax.files import read_records
from padis_jax.images import read_images
from padis_jax.measurements.geometry import ScanGeometry, read_geometry, write_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.weights import load_weights

PARALLEL = '{"beam": "parallel", "angles": [%s], "angle_unit": "radians", "bins": 3, "spacing_mm": %s}'
Reader = Callable[[Path], object]


def seeds(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """name of a good file -> (its bytes, what reads it)."""
    rng = np.random.default_rng(0)
    image = rng.random((12, 12)).astype(np.float32)
    made: dict[str, Reader] = {}

    def add(name: str, reader: Reader) -> Path:
        made[name] = reader
        return folder / name

    np.save(add("a.npy", read_images), image)
    np.savez_compressed(
        add("volume.npz", read_images), volume=(1000 * image[None]).astype(np.int16), spacing=np.ones(3)
    )
    scipy.io.savemat(add("images.mat", read_images), {"images": image})
    with h5py.File(add("images.h5", read_images), "w") as file:
        file.create_dataset("images", data=image[None].repeat(3, 0), compression="gzip")
    for name in ("a.png", "a.tif", "a.jpg"):
        Image.fromarray((255 * image).astype(np.uint8)).save(add(name, read_images))
    deep = (60000 * image).astype(np.uint16)
    Image.fromarray(deep).save(add("deep.png", read_images))
    with open(add("colour.png", read_images), "wb") as handle:
        png.Writer(12, 12, greyscale=False, bitdepth=16).write(handle, deep.repeat(3, 1))
    tifffile.imwrite(add("colour.tif", read_images), deep[..., None].repeat(3, 2), photometric="rgb")
    pages = [Image.fromarray(deep), Image.fromarray(deep[::-1].copy())]
    pages[0].save(add("pages.tif", read_images), save_all=True, append_images=pages[1:])
    with h5py.File(add("newer.mat", read_images), "w", userblock_size=512) as file:
        file["images"] = image
    nibabel.save(nibabel.Nifti1Image(image[..., None], np.eye(4)), add("a.nii", read_images))
    nibabel.save(nibabel.Nifti1Image(image[..., None], np.eye(4)), add("b.nii.gz", read_images))
    write_dicom(add("a.dcm", read_images), image)

    sinogram = rng.random((10, 12)).astype(np.float32)
    geometry = ScanGeometry("fan", tuple(np.arange(10) * 36.0), "degrees", 12, 1.0, 0.0, 60.0, 30.0)
    write_geometry(folder / "good.json", geometry)

    def scan(path: Path) -> object:
        return load_scan(MeasurementConfig(path=str(path), geometry=str(folder / "good.json")))

    np.save(add("scan.npy", scan), sinogram)
    np.savez(add("counts.npz", scan), counts=100 * np.exp(-sinogram), flat=np.full(12, 100.0), dark=np.zeros(12))
    about = {"sinogram": sinogram, "parameters": {"distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74,
             "numDetectorsPost": 12, "pixelSizePost": 0.2, "angles": np.arange(10.0)}}  # fmt: skip
    scipy.io.savemat(add("heltomo.mat", lambda p: load_scan(MeasurementConfig(path=str(p)))), {"CtDataFull": about})
    with h5py.File(add("scan.h5", scan), "w") as file:
        file["sinogram"] = sinogram
    with h5py.File(add("newer_scan.mat", scan), "w", userblock_size=512) as file:
        file["sinogram"] = sinogram.T
    Image.fromarray(sinogram).save(add("scan.tif", scan))
    write_geometry(add("geometry.json", read_geometry), geometry)
    astra = {"type": "fanflat", "DetectorWidth": 1.0, "DetectorCount": 12, "ProjectionAngles": [0.0, 0.5],
             "DistanceOriginSource": 60, "DistanceOriginDetector": 30}  # fmt: skip
    add("astra.json", read_geometry).write_text(json.dumps(astra))
    add("log.jsonl", read_records).write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')

    write_weights(add("w.safetensors", load_weights))
    flat = {"model.map_layer0.weight": rng.random((4, 4), np.float32), "model.b.bias": rng.random(4, np.float32)}
    body, arrays = tw.state_dict(flat)
    add("authors.pkl", read_torch).write_bytes(tw.network_pickle(flat))
    add("state.pt", read_torch).write_bytes(tw.archive(body, arrays, byteorder=b"little"))
    add("older.pt", read_torch).write_bytes(tw.stream(body, arrays))
    return {name: ((folder / name).read_bytes(), reader) for name, reader in made.items()}


def write_dicom(path: Path, image: np.ndarray) -> None:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = generate_uid(), generate_uid(), "CT"
    data.Rows, data.Columns = image.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
    data.PixelSpacing, data.SliceThickness = [1.0, 1.0], 1.0
    data.ImagePositionPatient, data.ImageOrientationPatient = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    data.PixelData = (1000 * image).astype("<i2").tobytes()
    data.save_as(path, enforce_file_format=True)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes after an accident."""
    changed = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:  # cut off
        return bytes(changed[: rng.integers(len(data))])
    if kind in (1, 2):  # flipped bits, anywhere or in the first bytes, where headers are
        reach = len(data) if kind == 1 else min(len(data), 256)
        for at in rng.integers(reach, size=rng.integers(1, 9)):
            changed[at] ^= 1 << rng.integers(8)
    elif kind == 3:  # the largest numbers
        at = int(rng.integers(len(data)))
        changed[at : at + 8] = b"\xff" * len(changed[at : at + 8])
    elif kind == 4:  # a piece is missing
        at = int(rng.integers(len(data)))
        del changed[at : at + int(rng.integers(1, 33))]
    else:  # a piece is there twice
        at = int(rng.integers(len(data)))
        changed[at:at] = data[at : at + int(rng.integers(1, 65))]
    return bytes(changed)


def crafted(folder: Path, good: dict[str, tuple[bytes, Reader]]) -> Iterator[tuple[str, bytes, Reader]]:
    """(name, bytes, reader) of files with wrong types, no values, huge headers, and odd names."""
    huge = (2**40, 2**40)
    scan = good["scan.npy"][1]
    for reader in (read_images, scan):
        for kind, array in (
            ("complex", np.ones((9, 9), complex)), ("text", np.full((9, 9), "x")), ("bool", np.ones((9, 9), bool)),
            ("empty", np.ones((0, 9))), ("number", np.asarray(3.0)), ("NaN", np.full((9, 9), np.nan)),
            ("dates", np.zeros((9, 9), "M8[s]")), ("records", np.zeros((9, 9), [("a", "f4")])),
            ("objects", np.full((9, 9), None)), ("many axes", np.ones((2,) * 8)),
            ("big-endian", np.ones((9, 9), ">f4")),
        ):  # fmt: skip
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=True)
            yield f"{kind}.npy", buffer.getvalue(), reader
            buffer = io.BytesIO()
            np.savez(buffer, sinogram=array, volume=array, allow_pickle=True)
            yield f"{kind}.npz", buffer.getvalue(), reader
        for shape in (huge, (-1, 5), (2**70, 2)):
            header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
            npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
            yield f"huge{shape[0]}.npy", npy, reader
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("sinogram.npy", npy)
            yield f"huge{shape[0]}.npz", buffer.getvalue(), reader
        bomb = io.BytesIO()
        np.savez_compressed(bomb, sinogram=np.zeros((4000, 4000)))
        yield "zeros.npz", bomb.getvalue(), reader
        with h5py.File(folder / "huge.h5", "w") as file:
            file.create_dataset("sinogram", shape=(2**20, 2**20), dtype="f4", chunks=(64, 64))
        yield "declared.h5", (folder / "huge.h5").read_bytes(), reader
        for name in (
            "empty.npy",
            "empty.npz",
            "empty.mat",
            "empty.h5",
            "empty.tif",
            "empty.dcm",
            "empty.nii",
            "empty.png",
        ):
            yield name, b"", reader
    png = bytearray(good["a.png"][0])
    png[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    yield "wide.png", bytes(png), read_images
    nifti = bytearray(good["a.nii"][0])
    nifti[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
    yield "wide.nii", bytes(nifti), read_images
    dicom = good["a.dcm"][0].replace(struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 12),
                                     struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 65535))  # fmt: skip
    yield "wide.dcm", dicom, read_images
    weights = good["w.safetensors"][0]
    for length in (2**60, 2**63, len(weights)):
        yield "long.safetensors", struct.pack("<Q", length) + weights[8:], load_weights
    yield "deep.safetensors", struct.pack("<Q", 200_000) + b"[" * 200_000, load_weights
    for text in ("1e999", "[" * 50_000, '{"beam": 1}', "9" * 5000, '{"type": "parallel", "DetectorCount": 1e400}',
                 PARALLEL % ("9" * 400, "1"), PARALLEL % ("1", "9" * 400),
                 "\ud800"):  # fmt: skip
        yield "odd.json", text.encode("utf-8", "surrogatepass"), read_geometry
    for body in (tw.call(tw.name("os", "system"), tw.text("touch CANARY")), b"]" * 100_000, b"(" * 100_000,
                 b"\x8e" + struct.pack("<Q", 2**62), b"r\xff\xff\xff\xff", b"N" * 3_000_000):  # fmt: skip
        yield "hostile.pkl", tw.pickled(body), read_torch
    yield "bomb.pt", tw.bomb(20_000_000), read_torch
    for name, (data, reader) in good.items():
        suffix = "".join(Path(name).suffixes)
        for odd in ("Ünï 文件 \u202e", "a\tb 'quoted' \"twice\"", "-flag", "x" * 200):
            yield odd + suffix, data[: len(data) // 2], reader
