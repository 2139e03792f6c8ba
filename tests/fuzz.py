"""Damaged and hostile files for every reader, disks that are full and folders that cannot be written.

    python tests/fuzz.py [--cases 400] [--seed 0] [--processes 5]

Each case ends in a value or in one line (UserError). Printed is how many did not: tracebacks (any other exception, or a
message of several lines), hangs (more than SECONDS of processor time), half-written outputs (a file that is neither the
old nor the new one, or a temporary file that stays) and chatter (a library printed something of its own). Cases are
decided by the seed. Most run in this process; some are repeated by the programs themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
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

from padis_jax.cli import convert
from padis_jax.conversion.torch_files import read_torch
from padis_jax.errors import UserError
from padis_jax.files import read_records, write_json, write_npy, write_npz
from padis_jax.images import HOUNSFIELD, ImageSet, read_images
from padis_jax.measurements.geometry import ScanGeometry, read_geometry, write_geometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.runs.html_report import write_report
from padis_jax.weights import load_weights
from padis_jax.writers import result, write_result

SECONDS = 10.0
WRONG = ("traceback", "hang", "half-written", "chatter")
ROOT = Path(__file__).parent.parent
PARALLEL = '{"beam": "parallel", "angles": [%s], "angle_unit": "radians", "bins": 3, "spacing_mm": %s}'
Reader = Callable[[Path], object]


class Hang(BaseException):
    """A case took too long."""


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
    _dicom(add("a.dcm", read_images), image)

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


def _dicom(path: Path, image: np.ndarray) -> None:
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


def attempt(case: Callable[[], object]) -> tuple[str, str]:
    """(what came of it, message): value, refused, traceback or hang."""

    def stop(*_: object) -> None:
        raise Hang

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case()
    except UserError as error:
        message = str(error)
        one_line = 0 < len(message) < 2000 and "\n" not in message
        return ("refused" if one_line else "traceback"), message
    except Hang:
        return "hang", ""
    except SystemExit as error:
        return ("refused" if error.code == 2 else "traceback"), str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library too, which is no Exception
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    return "value", ""


@contextlib.contextmanager
def overheard() -> Iterator[io.BytesIO]:
    """What libraries print on stderr meanwhile, below Python too."""
    found, kept = io.BytesIO(), os.dup(2)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            found.write(file.read())


def reading(folder: Path, cases: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(case, what came of it, message) of every file that is read."""
    good = seeds(folder)
    for name, (_, reader) in good.items():
        outcome, message = attempt(lambda path=folder / name, reader=reader: reader(path))
        if outcome != "value":
            raise RuntimeError(f"the good file {name} was not read: {message}")
    bad = folder / "bad"
    bad.mkdir()
    work = [(f"{name}: {i}", name, data, reader) for i, (name, data, reader) in enumerate(crafted(folder, good))]
    names = list(good)
    for i in range(cases):
        name = names[i % len(names)]
        data, reader = good[name]
        work.append((f"{name}: damage {i}", name, damaged(data, np.random.default_rng([seed, i])), reader))
    for case, name, data, reader in work:
        path = bad / name
        path.write_bytes(data)
        with overheard() as printed:
            outcome, message = attempt(lambda path=path, reader=reader: reader(path))
        if printed.getvalue() and outcome in ("value", "refused"):
            outcome, message = "chatter", printed.getvalue().decode(errors="replace")
        yield case, outcome, message
        path.unlink()
    if (folder / "CANARY").exists() or Path("CANARY").exists():
        yield "canary", "traceback", "a file ran its command"


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def writing(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(case, what came of it, message) of outputs that cannot be finished."""
    from matplotlib.figure import Figure

    from padis_jax.figures import save_figure

    array, target = np.random.default_rng(0).random((64, 64)), folder / "out Ünï 文件 \u202e"
    target.mkdir()
    frame = ["--image-shape", "16", "16", "--patch", "8", "--low", "0", "--high", "1", "--quiet", "--overwrite"]
    with np.load(Path(__file__).parent / "fixtures" / "ddpmpp_small.npz") as file:
        flat = {k.removeprefix("weights/"): file[k] for k in file.files if k.startswith("weights/")}
    source = folder / "network.pkl"
    source.write_bytes(tw.network_pickle(flat))
    geometry = ScanGeometry("parallel", tuple(np.arange(3000.0)), "degrees", 12, 1.0)
    figure = Figure()
    figure.add_subplot().imshow(array)

    def converted(path: Path) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            convert.main([str(source), str(path), *frame])

    scan = ImageSet(array[None, ..., None].astype(np.float32), ("scan",), HOUNSFIELD, spacing=(1.0, 1.0, 1.0))
    made = result(scan.images, scan, "DDS", window=HOUNSFIELD)
    _dicom(folder / "source.dcm", array)
    series = read_images(folder / "source.dcm")
    derived = result(array[None, ..., None], series, "DDS", window=HOUNSFIELD)

    writers: dict[str, Callable[[Path], object]] = {
        "00001.dcm": lambda p: write_result(p.parent, "dicom", made),
        "derived/00001.dcm": lambda p: write_result(p.parent, "dicom", derived),
        "x.nii.gz": lambda p: write_result(p.parent / "x", "nifti", made),
        "y.nii.gz": lambda p: write_result(p.parent / "y", "nifti", derived),
        "x.png": lambda p: write_result(p.parent / "x", "png", made),
        "x.tif": lambda p: write_result(p.parent / "x", "tiff", made),
        "x.npz": lambda p: write_result(p.parent / "x", "npz", made),
        "report.html": lambda p: write_report(p, "x" * 2000, pictures={}, rows=[], settings={}),
        "a.npy": lambda p: write_npy(p, array),
        "a.npz": lambda p: write_npz(p, {"a": array}),
        "a.json": lambda p: write_json(p, array),
        "a.png": lambda p: save_figure(p, figure),
        "geometry.json": lambda p: write_geometry(p, geometry),
        "w.safetensors": lambda p: write_weights(p),
        "converted.safetensors": converted,
    }
    for name, write in writers.items():
        for old in (None, b"older"):
            path = target / name
            path.parent.mkdir(exist_ok=True)
            if old:
                path.write_bytes(old)
            with full_disk(1000):
                outcome, message = attempt(lambda write=write, path=path: write(path))
            left = path.read_bytes() if path.exists() else None
            if outcome == "value" or left != old or list(target.rglob("*.tmp")) or list(target.rglob(".*")):
                outcome = "half-written"
            yield f"full disk, {name}, {'replacing' if old else 'new'}", outcome, message
            path.unlink(missing_ok=True)
        for where, path in (("read-only folder", _unwritable(folder) / name), ("a file in the way", source / name)):
            outcome, message = attempt(lambda write=write, path=path: write(path))
            yield f"{where}, {name}", "half-written" if outcome == "value" else outcome, message


def _unwritable(folder: Path) -> Path:
    """A folder that cannot be written, by root neither."""
    if os.geteuid() == 0:
        return Path("/proc/self/fdinfo")
    locked = folder / "locked"
    locked.mkdir(exist_ok=True)
    locked.chmod(0o500)
    return locked


def programs(folder: Path, count: int) -> Iterator[tuple[str, str, str]]:
    """The same by the programs themselves: exit code 2 and one line, nothing written."""
    good = seeds(folder)
    target = folder / "results"
    frame = ["--image-shape", "16", "16", "--patch", "8", "--low", "0", "--high", "1"]
    samples = ["--weights", folder / "w.safetensors", "--workdir", target]
    bad = folder / "bad"
    bad.mkdir()
    for i, (name, command) in enumerate((
        ("authors.pkl", lambda p: ["convert", p, target / "o.safetensors", *frame]),
        ("scan.h5", lambda p: ["sample", *samples, "--measurement.path", p]),
        ("w.safetensors", lambda p: ["sample", "--weights", p, "--workdir", target]),
        ("a.dcm", lambda p: ["sample", *samples, "--image.path", p, "--image.index", "0"]),
        ("scan.npy", lambda p: ["sample", *samples[:2], "--workdir", _unwritable(folder) / "x", "--measurement.path",
                                folder / "scan.npy", "--measurement.geometry", folder / "good.json"]),
    )[:count]):  # fmt: skip
        path = bad / name
        path.write_bytes(good[name][0][: -len(good[name][0]) // 3])
        program, *rest = command(path)
        done = subprocess.run(
            [sys.executable, "-c", f"from padis_jax.cli.{program} import main; main()", *map(str, rest)],
            capture_output=True, text=True, timeout=600, cwd=folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        fine = done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        outcome = "half-written" if target.exists() else "refused" if fine else "traceback"
        yield f"program {i}, {name}", outcome, done.stderr


def run(cases: int, seed: int, processes: int, *, verbose: bool = True) -> Counter[str]:
    """Runs everything, prints what went wrong and the counts, which it returns."""
    counts: Counter[str] = Counter()
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            for part, make in (
                ("read", lambda folder: reading(folder, cases, seed)),
                ("written", writing),
                ("programs", lambda folder: programs(folder, processes)),
            ):
                folder = Path(name) / part
                folder.mkdir()
                for case, outcome, message in make(folder):
                    counts[outcome] += 1
                    if verbose and outcome not in ("value", "refused"):
                        print(f"{outcome}: {case}: {' '.join(message.split())[:300]}")
        finally:
            os.chdir(here)
    if verbose:
        print(
            f"{sum(counts.values())} cases: {counts['refused']} refused in one line, {counts['value']} read; "
            f"tracebacks {counts['traceback']}, hangs {counts['hang']}, half-written outputs {counts['half-written']}, "
            f"chatter {counts['chatter']}"
        )
    return counts


def main() -> None:
    """Command line; exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400, help="files damaged at random, beside those made by hand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=5, help="cases repeated by the programs, at most 5")
    given = parser.parse_args()
    counts = run(given.cases, given.seed, given.processes)
    sys.exit(any(counts[outcome] for outcome in WRONG))


if __name__ == "__main__":
    main()
