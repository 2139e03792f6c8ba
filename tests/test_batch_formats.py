"""sample.py --measurements on a folder of measured scans: every format, a fan beam, counts, a kill in the middle."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from tiny import failing, refused, write_weights

from padis_jax.cli.sample import main
from padis_jax.measurements.geometry import ScanGeometry, write_geometry

ROOT = Path(__file__).parent.parent
FAN = ScanGeometry(
    "fan",
    tuple(np.arange(0, 360, 30.0)),
    "degrees",
    24,
    spacing_mm=2.0,
    source_distance_mm=60.0,
    detector_distance_mm=20.0,
)
QUICK = (
    "--tv.weight 0.1 --tv.iterations 5 --solver.levels 3 --solver.sigma-max 2 --solver.average 1 --solver.cg-steps 2 "
    "--solver dds --solver.consistency 0.1 --measurement.noise 0.01 --measurement.attenuation 0.05"
).split()
GOOD = ("a", "b", "c", "d", "e", "f.npy", "f.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, the geometry, and scans/ with one scan in every format and four files that cannot be used."""
    folder = tmp_path_factory.mktemp("formats")
    write_weights(folder / "w.safetensors")
    write_geometry(folder / "fan.json", FAN)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    operator = FAN.operator((16, 16), FAN.field_mm / 16)
    sinogram = 0.05 * FAN.field_mm / 16 * np.asarray(operator(np.float32(0.7 * (np.hypot(x, y) < 0.6))), np.float32)
    scans = folder / "scans"
    scans.mkdir()
    np.save(scans / "a.npy", sinogram)
    np.savez(scans / "b.npz", counts=1e4 * np.exp(-sinogram), flat=np.full(24, 1e4))
    scipy.io.savemat(scans / "c.mat", {"sinogram": sinogram})
    with h5py.File(scans / "d.h5", "w") as file:
        file["sinogram"] = sinogram
    Image.fromarray(sinogram).save(scans / "e.tif")
    np.save(scans / "f.npy", 0.5 * sinogram)
    np.savez(scans / "f.npz", sinogram=0.25 * sinogram)
    np.save(scans / "g.npy", sinogram[:, :23])
    np.save(scans / "h.npy", np.where(sinogram > 1e-3, np.nan, sinogram))
    (scans / "i.mat").write_bytes(b"MATLAB 5.0 MAT-file, or so it says")
    np.savez(scans / "j.npz", counts=1e4 * np.exp(-sinogram))
    return folder


def _arguments(folder, out, *more):
    start = ["--weights", folder / "w.safetensors", "--measurements", folder / "scans"]
    start += ["--measurement.geometry", folder / "fan.json", "--workdir", out, "--batch", 3]
    return [str(a) for a in (*start, *QUICK, *more)]


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "a"
    failing(main, _arguments(folder, out), "measurements failed; the first: ")
    return out


def _manifest(out):
    return {r["item"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


def _image(out, item):
    with np.load(out / f"{item}.npz") as archive:
        return archive["image"]


def test_every_format_and_every_failure_has_its_line(done):
    lines = _manifest(done)
    assert list(lines) == [*GOOD, "g", "h", "i", "j"]
    assert [n for n, line in lines.items() if line["status"] == "done"] == [*GOOD]
    reasons = {n: line["reason"] for n, line in lines.items() if line["status"] == "failed"}
    assert "g.npy" in reasons["g"] and "24" in reasons["g"]  # bins of the geometry
    assert "h.npy" in reasons["h"] and "NaN" in reasons["h"]
    assert "i.mat" in reasons["i"] and "flat" in reasons["j"]
    assert all(_image(done, item).shape == (16, 16, 1) for item in GOOD)
    assert json.loads((done / "job.json").read_text())["geometry"]["beam"] == "fan"


@pytest.mark.parametrize("item", ["b", "e", "f.npz"])
def test_an_item_is_what_a_single_run_gives(folder, done, tmp_path, item):
    """The number that its name makes stands for the image's."""
    file = next(p for p in sorted((folder / "scans").iterdir()) if item in (p.stem, p.name))
    index = int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") >> 1
    single = ["--weights", folder / "w.safetensors", "--measurement.path", file, "--image.index", index]
    single += ["--measurement.geometry", folder / "fan.json", "--workdir", tmp_path, *QUICK]
    main([str(a) for a in single])
    with np.load(tmp_path / "reconstruction.npz") as archive:
        expected = archive["DDS"]
    np.testing.assert_allclose(_image(done, item), expected, atol=1e-4)
    assert np.ptp(expected) > 0.05


def test_scans_of_another_geometry_fail_and_the_rest_is_done(folder, tmp_path):
    """Angles may lie beside the sinogram; the first file's are those of the job."""
    geometry = json.loads((folder / "fan.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps({k: v for k, v in geometry.items() if "angle" not in k}))
    (tmp_path / "scans").mkdir()
    sinogram = np.load(folder / "scans" / "a.npy")
    for name, turn in (("a", 0), ("b", 0), ("c", 5)):
        np.savez(tmp_path / "scans" / f"{name}.npz", sinogram=sinogram, angles_degrees=np.asarray(FAN.angles) + turn)
    arguments = _arguments(folder, tmp_path / "out", "--measurements", tmp_path / "scans")
    failing(main, [*arguments, "--measurement.geometry", tmp_path / "bare.json"], "1 of 3 measurements failed")
    lines = _manifest(tmp_path / "out")
    assert [line["status"] for line in lines.values()] == ["done", "done", "failed"]
    assert "its geometry is not that of a.npz (angles)" in lines["c"]["reason"]


def test_what_cannot_be_meant(folder, tmp_path, capsys):
    message = refused(main, _arguments(folder, tmp_path / "o", "--measurement.find-centre"), capsys)
    assert "all of --measurements share one geometry" in message
    (tmp_path / "empty").mkdir()
    arguments = _arguments(folder, tmp_path / "o", "--measurements", tmp_path / "empty")
    assert "no such folder, or no measurements in it" in refused(main, arguments, capsys)
    (tmp_path / "empty" / "x.mat").write_bytes(b"nothing")
    assert "none of its 1 files can be used" in refused(main, arguments, capsys)
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_and_gives_the_same(folder, done, tmp_path):
    """kill -9 as soon as some items are done; none of these is touched again, all images are as without the kill."""
    out, more = tmp_path / "out", ["--batch", "1", "--devices", "1"]
    command = [sys.executable, str(ROOT / "sample.py"), *_arguments(folder, out, *more)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    while not (out / "manifest.jsonl").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -9
    before = {name for name, line in _manifest(out).items() if line["status"] == "done"}
    times = {name: (out / f"{name}.npz").stat().st_mtime_ns for name in before}
    assert 0 < len(before) < len(GOOD)
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"{len(GOOD) - len(before)} done, 4 failed, {len(before)} kept from before" in finished.stdout
    assert {name: (out / f"{name}.npz").stat().st_mtime_ns for name in before} == times
    assert {n: line["status"] for n, line in _manifest(out).items()} == {
        n: line["status"] for n, line in _manifest(done).items()
    }
    for item in GOOD:
        np.testing.assert_allclose(_image(out, item), _image(done, item), atol=1e-4)
