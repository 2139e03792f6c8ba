"""What lies beside a sinogram is found by its name, in capitals or not, and its angles are in the unit that is told."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from padis_jax.errors import UserError
from padis_jax.images import read_images
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.measurements.sinogram_files import open_sinogram

LINES = np.random.default_rng(0).random((5, 8))
ANGLES = np.arange(5) * 36.0


def read(path, **geometry):
    about = {"beam": "parallel", "bins": 8, "spacing_mm": 1.0} | geometry
    path.with_suffix(".json").write_text(json.dumps(about))
    return load_scan(MeasurementConfig(path=str(path), geometry=str(path.with_suffix(".json"))))


def test_names_are_found_in_capitals_too(tmp_path):
    counts = np.rint(400 * np.exp(-LINES)) + 100
    arrays = {"Counts": counts, "Flat": np.full(8, 500.0), "DARK": np.full(8, 100.0), "Angles_Degrees": ANGLES}
    np.savez(tmp_path / "s.npz", **arrays)
    scan = read(tmp_path / "s.npz")
    np.testing.assert_allclose(scan.sinogram, -np.log((counts - 100) / 400), atol=1e-6)
    assert scan.geometry.angles == tuple(ANGLES)
    np.savez(tmp_path / "g.npz", **{f"a/{name}": array for name, array in arrays.items()}, **{"b/data": LINES})
    assert open_sinogram(f"{tmp_path / 'g.npz'}::a").name == "a/Counts"
    del arrays["Flat"]  # few counts are counts, too
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(UserError, match="counts need a flat field"):
        read(tmp_path / "s.npz")


@pytest.mark.parametrize("told", ["radians", np.bytes_("radians"), np.array([b"radians"]), np.array(["rad"], object)])
def test_the_unit_of_angles_is_a_text_of_characters_or_bytes_alone_or_in_an_array(tmp_path, told):
    with h5py.File(tmp_path / "dx.h5", "w") as file:
        file["exchange/data"], file["exchange/theta"] = LINES[:, None], np.radians(ANGLES)
        file["exchange/theta"].attrs["units"] = told
    np.testing.assert_allclose(read(tmp_path / "dx.h5").geometry.radians, np.radians(ANGLES))


@pytest.mark.parametrize("own", [True, False])
def test_angles_in_radians_beside_heltomos_parameters_stay_radians(tmp_path, own):
    parameters = {"distanceSourceOrigin": 410.0, "distanceSourceDetector": 550.0, "pixelSize": 0.2, "numDetectors": 8}
    parameters |= {"angles": ANGLES} if own else {}
    scipy.io.savemat(
        tmp_path / "s.mat", {"sinogram": LINES, "angles_radians": np.radians(ANGLES), "parameters": parameters}
    )
    geometry = load_scan(MeasurementConfig(path=str(tmp_path / "s.mat"))).geometry
    np.testing.assert_allclose(geometry.radians, np.radians(ANGLES))


def test_cells_of_structures_and_numbers_are_passed_over(tmp_path):
    cells = np.empty(2, object)
    cells[:] = [{"a": 1.0}, np.arange(3.0)]
    scipy.io.savemat(tmp_path / "s.mat", {"sinogram": LINES, "notes": cells, "angles_degrees": ANGLES})
    np.testing.assert_allclose(read(tmp_path / "s.mat").sinogram, LINES, atol=1e-6)


def test_a_geometry_file_may_begin_with_the_mark_of_windows_editors(tmp_path):
    np.save(tmp_path / "s.npy", LINES)
    about = {"beam": "parallel", "bins": 8, "spacing_mm": 1.0, "angles": ANGLES.tolist(), "angle_unit": "degrees"}
    (tmp_path / "g.json").write_text(json.dumps(about), "utf-8-sig")
    scan = load_scan(MeasurementConfig(path=str(tmp_path / "s.npy"), geometry=str(tmp_path / "g.json")))
    assert scan.geometry.angles == tuple(ANGLES)


@pytest.mark.parametrize("field", ["flat", "dark"])
def test_a_field_of_other_detector_rows_is_refused(tmp_path, field):
    counts = np.stack([np.rint(400 * np.exp(-LINES)) + 100] * 2)  # [rows, views, bins]
    fields = {"flat": np.full((2, 1, 8), 500.0), "dark": np.full((2, 1, 8), 100.0)}
    about = {"angles": ANGLES.tolist(), "angle_unit": "degrees"}
    config = dict(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "s.json"), axes="rows,views,bins", row=1)
    np.savez(tmp_path / "s.npz", counts=counts, **fields)
    (tmp_path / "s.json").write_text(json.dumps({"beam": "parallel", "bins": 8, "spacing_mm": 1.0} | about))
    np.testing.assert_allclose(
        load_scan(MeasurementConfig(**config)).sinogram, -np.log((counts[1] - 100) / 400), atol=1e-6
    )
    np.savez(tmp_path / "s.npz", counts=counts, **fields | {field: np.ones((3, 2, 8))})  # [n, rows, bins]
    words = rf"{field} \(3, 2, 8\) read as rows,views,bins has 3 detector rows, but counts has 2"
    with pytest.raises(UserError, match=words):
        load_scan(MeasurementConfig(**config))


def test_what_an_archiver_adds_is_no_array(tmp_path):
    np.savez(tmp_path / "s.npz", sinogram=LINES, angles_degrees=ANGLES)
    with zipfile.ZipFile(tmp_path / "s.npz", "a") as archive:
        archive.writestr("notes.txt", "of March")
        archive.writestr("__MACOSX/._sinogram.npy", b"\0\5\26\7")
        archive.writestr("folder/", "")
    np.testing.assert_allclose(read(tmp_path / "s.npz").sinogram, LINES, atol=1e-6)
    np.testing.assert_allclose(read_images(f"{tmp_path / 's.npz'}").images[0, ..., 0], LINES, atol=1e-6)


def test_a_missing_field_of_a_geometry_is_named(tmp_path):
    np.savez(tmp_path / "s.npz", sinogram=LINES, angles_degrees=ANGLES)
    (tmp_path / "g.json").write_text('{"beam": "parallel", "bins": 8}')
    with pytest.raises(UserError, match="g.json: geometry: spacing_mm is missing: add it"):
        load_scan(MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "g.json")))
