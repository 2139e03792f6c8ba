"""Measured sinograms from every format, raw counts to line integrals, and one line for what is wrong."""

import dataclasses

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.measurements.line_integrals import line_integrals
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.measurements.sinogram_files import read_sinogram

LINES = np.random.default_rng(0).random((5, 8)).astype(np.float32)
ANGLES = np.arange(5) * 36.0
PARAMETERS = {
    "distanceSourceOrigin": 410.66,
    "distanceSourceDetector": 553.74,
    "numDetectorsPost": 8,
    "pixelSizePost": 0.2,
    "angles": ANGLES,
    "projectName": "htc",
}


def _save(path, kind):
    if kind == "npy":
        np.save(path / "s.npy", LINES)
        return path / "s.npy"
    if kind == "npz":
        np.savez(path / "s.npz", sinogram=LINES, angles_degrees=ANGLES)
        return path / "s.npz"
    if kind == "group":
        np.savez(path / "s.npz", **{"tb_1/sinogram": LINES, "tb_1/angles_degrees": ANGLES, "tb_2/sinogram": LINES[:3]})
        return f"{path / 's.npz'}::tb_1"
    if kind == "mat":
        scipy.io.savemat(path / "s.mat", {"sinogram": LINES, "angles_degrees": ANGLES})
        return path / "s.mat"
    if kind == "heltomo":
        scipy.io.savemat(path / "s.mat", {"CtDataFull": {"type": "2D", "sinogram": LINES, "parameters": PARAMETERS}})
        return path / "s.mat"
    if kind == "mat 7.3":
        with h5py.File(path / "s.mat", "w", userblock_size=512) as file:
            file["sinogram"], file["angles_degrees"] = LINES.T, ANGLES[:, None]
        return path / "s.mat"
    if kind == "h5":
        with h5py.File(path / "s.h5", "w") as file:
            file["scan/projections"], file["scan/angles_rad"] = np.stack([-LINES, LINES], 1), np.radians(ANGLES)
        return path / "s.h5"
    pages = [Image.fromarray(np.stack([-LINES[v], LINES[v]])) for v in range(5)]
    pages[0].save(path / "s.tif", save_all=True, append_images=pages[1:])
    return path / "s.tif"


@pytest.mark.parametrize("kind", ["npy", "npz", "group", "mat", "heltomo", "mat 7.3", "h5", "tif"])
def test_every_format_gives_the_same_sinogram(tmp_path, kind):
    found = read_sinogram(_save(tmp_path, kind), row=1 if kind in ("h5", "tif") else 0)
    np.testing.assert_array_equal(found.sinogram, LINES)
    if kind not in ("npy", "tif"):
        scale = np.degrees(1) if found.angle_unit == "radians" else 1
        np.testing.assert_allclose(np.asarray(found.angles) * scale, ANGLES)
    if kind == "heltomo":
        wanted = ScanGeometry("fan", tuple(ANGLES), "degrees", 8, 0.2, 0.0, 410.66, 553.74 - 410.66)
        assert found.geometry == wanted
        assert load_scan(MeasurementConfig(path=str(tmp_path / "s.mat"))).geometry == wanted


def test_counts_become_line_integrals(tmp_path):
    rng = np.random.default_rng(1)
    flat, dark = 1000 + 100 * rng.random((3, 8)), 10 + rng.random((2, 8))
    counts = dark.mean(0) + (flat.mean(0) - dark.mean(0)) * np.exp(-LINES)
    np.savez(tmp_path / "c.npz", counts=counts, flat=flat, dark=dark)
    write_geometry(tmp_path / "g.json", ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 1.0))
    scan = load_scan(MeasurementConfig(path=str(tmp_path / "c.npz"), geometry=str(tmp_path / "g.json")))
    np.testing.assert_allclose(scan.sinogram, LINES, atol=1e-5)
    assert scan.repaired == 0


def test_angles_may_be_in_the_sinograms_file(tmp_path):
    np.savez(tmp_path / "s.npz", sinogram=LINES, angles_degrees=ANGLES)
    (tmp_path / "g.json").write_text('{"beam": "parallel", "bins": 8, "spacing_mm": 0.5}')
    scan = load_scan(MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "g.json")))
    assert scan.geometry == ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 0.5)
    with pytest.raises(UserError, match="measurement.check needs a measurement"):
        MeasurementConfig(check=True)


def test_unusable_counts_are_filled_and_counted():
    lines = np.tile(np.linspace(0, 1.4, 8), (5, 1))
    flat, counts = np.full(8, 100.0), 100 * np.exp(-lines)
    counts[1, 2], counts[3, 4], flat[6] = 0.0, np.nan, 0.0
    counts[:, 6] = 0
    found = line_integrals(counts, flat)
    assert found.repaired == 7
    np.testing.assert_allclose(found.sinogram, lines, atol=1e-6)  # linear along the detector, so filled exactly
    with pytest.raises(ValueError, match="view 2 has no usable bin"):
        line_integrals(counts * (np.arange(5) != 2)[:, None], flat)
    with pytest.raises(ValueError, match="of 40 counts are unusable"):
        line_integrals(np.where(lines > 0.7, 0, counts), 100)
    with pytest.raises(ValueError, match="flat field has shape"):
        line_integrals(counts, np.ones(7))


def test_mistakes_are_named(tmp_path):
    np.savez(tmp_path / "two.npz", a=LINES, b=LINES)
    np.savez(tmp_path / "c.npz", counts=LINES)
    np.savez(tmp_path / "o.npz", sinogram=np.asarray([[{}]], object))
    np.save(tmp_path / "s.npy", LINES)
    (tmp_path / "s.txt").write_text("1 2")
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0" * 30)
    geometry = ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 1.0)
    write_geometry(tmp_path / "g.json", geometry)
    write_geometry(tmp_path / "other.json", dataclasses.replace(geometry, bins=9))
    for path, about, message in (
        ("two.npz", {}, "name one: "),
        ("two.npz::c", {}, "no array or group 'c'"),
        ("none.npy", {}, "no such file"),
        ("o.npz", {}, "no array"),
        ("s.txt", {}, "not a known type of measurement"),
        ("b.mat", {}, "b.mat: "),
        ("s.npy", {}, "give a file with --measurement.geometry"),
        ("s.npy", {"geometry": "other.json"}, "5 views of 9 bins"),
        ("c.npz", {"geometry": "g.json"}, "counts need a flat field"),
    ):
        about = {name: str(tmp_path / value) for name, value in about.items()}
        with pytest.raises(UserError) as refused:
            load_scan(MeasurementConfig(path=str(tmp_path / path), **about))
        assert message in str(refused.value) and "\n" not in str(refused.value), str(refused.value)
    with pytest.raises(UserError, match="there is no row 3"):
        np.save(tmp_path / "v.npy", np.ones((5, 2, 8)))
        read_sinogram(tmp_path / "v.npy", row=3)
