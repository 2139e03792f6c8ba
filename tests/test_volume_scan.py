"""Scans with many detector rows become what the operators on volumes take, whatever the order of their axes."""

import dataclasses

import numpy as np
import pytest

from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.volume_scan import load_volume, read_scan_geometry, slices_operator

VIEWS, ROWS, BINS = 4, 3, 7
DATA = np.random.default_rng(0).random((VIEWS, ROWS, BINS)).astype(np.float32)
FAN = ScanGeometry("fan", (0.0, 30.0, 100.0, 200.0), "degrees", BINS, 1.0, 0.0, 40.0, 20.0)
CONE = ConeScan("cone", ROWS, BINS, FAN.angles, "degrees", 1.0, 1.0, 0.0, 0.0, 40.0, 20.0)


def saved(path, array, **beside):
    np.savez(path / "s.npz", sinogram=array, **beside)
    return path / "s.npz"


@pytest.mark.parametrize(("axes", "order"), [("views,rows,bins", (0, 1, 2)), ("bins,views,rows", (2, 0, 1))])
def test_rows_become_slices_and_a_cones_stay_in_their_views(tmp_path, axes, order):
    path = saved(tmp_path, DATA.transpose(order))
    scan = load_volume(path, FAN, axes=axes)
    np.testing.assert_array_equal(scan.projections, np.moveaxis(DATA, 1, 0))
    operator = slices_operator(scan, (5, 5))
    assert operator.measurement_shape == scan.projections.shape and operator.image_shape == (ROWS, 5, 5)
    assert operator.geometry.pixel_size == 1.0 and operator.geometry.detector_spacing == 5 / FAN.field_mm
    cone = load_volume(path, CONE, axes=axes)
    np.testing.assert_array_equal(cone.projections, DATA)
    assert CONE.operator((2, 5, 5), 1.0, 1.0).measurement_shape == cone.projections.shape
    with pytest.raises(UserError, match="rows of a cone beam are no slices"):
        slices_operator(cone, (5, 5))


def test_counts_of_all_rows_with_their_own_flat_fields(tmp_path):
    flat, dark = np.full((ROWS, BINS), 900.0) + np.arange(ROWS)[:, None], np.full((ROWS, BINS), 10.0)
    counts = dark + (flat - dark) * np.exp(-DATA)
    counts[1, 2, 3] = 5.0  # below the dark field
    scan = load_volume(saved(tmp_path, counts, flat=flat, dark=dark), FAN, counts=True)
    assert scan.repaired == 1
    expected = np.moveaxis(DATA, 1, 0).copy()
    expected[2, 1, 3] = (expected[2, 1, 2] + expected[2, 1, 4]) / 2
    np.testing.assert_allclose(scan.projections, expected, atol=2e-5)


def test_what_a_volume_cannot_be(tmp_path):
    for geometry in (FAN, CONE):
        with pytest.raises(UserError, match="sinogram is zero everywhere"):
            load_volume(saved(tmp_path, np.zeros_like(DATA)), geometry)
        with pytest.raises(UserError, match="row 0: most counts are above the flat field"):
            load_volume(saved(tmp_path, 100 * np.exp(-DATA)), geometry, counts=True, flat=1.0)
        note = "the file has a flat field, used instead of --measurement.flat"
        path = saved(tmp_path, 100 * np.exp(-DATA), flat=np.full((ROWS, BINS), 100.0))
        assert load_volume(path, geometry, counts=True, flat=1.0).notes == (note,)


def test_notes(tmp_path):
    data = DATA.copy()
    data[:, 2] = 0
    assert load_volume(saved(tmp_path, data), FAN).notes == (
        "1 of 3 rows of sinogram are zero everywhere, the first of them row 2",
    )
    square = dataclasses.replace(CONE, rows=VIEWS)
    note = load_volume(saved(tmp_path, np.ones((VIEWS, VIEWS, BINS), np.float32)), square).notes[0]
    assert "was read as views,rows,bins; rows,views,bins would fit too" in note


def nan(row):
    data = DATA.copy()
    data[1, row, 0] = np.nan
    return data


BAD = {
    "order": (
        DATA.transpose(1, 0, 2), FAN, {},
        "read as views,rows,bins has 3 views of 7 bins, but the geometry has 4 of 7; read as rows,views,bins it fits",
    ),
    "a cone's order": (
        DATA.transpose(1, 0, 2), CONE, {},
        "read as views,rows,bins has 3 views of 4 x 7 (rows x columns), but the geometry has 4 views of 3 x 7; read as "
        "rows,views,bins it fits",
    ),
    "a cone's shape": (DATA[:, :2], CONE, {}, "has 4 views of 2 x 7 (rows x columns), but the geometry has 4 views of"),
    "no rows": (DATA[:, 0], FAN, {}, "has no axis of detector rows, which a volume needs"),
    "NaN": (nan(2), FAN, {}, "1 of 3 rows of sinogram have NaN or infinity, the first of them row 2"),
    "no geometry": (DATA, None, {}, "it has no geometry"),
    "no flat": (DATA, FAN, {"counts": True}, "row 0: counts need a flat field"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_one_line(tmp_path, case):
    data, geometry, options, message = BAD[case]
    with pytest.raises(UserError) as refused:
        load_volume(saved(tmp_path, data), geometry, **options)
    assert message in str(refused.value) and "s.npz" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("unit", "last"), [("degrees", 6.2), ("radians", 350.0)])
def test_angles_of_a_volume_that_look_like_the_other_unit_are_told(tmp_path, unit, last):
    angles = tuple(np.linspace(0, last, 8).tolist())
    path = saved(tmp_path, np.concatenate([DATA, DATA]))
    for geometry in (FAN, CONE):
        (note,) = load_volume(path, dataclasses.replace(geometry, angles=angles, angle_unit=unit)).notes
        assert f"the angles span {last:g} {unit}" in note and "are they" in note


def test_a_cones_file_tells_the_unit_of_its_angles(tmp_path):
    about = {
        name: value for name, value in dataclasses.asdict(CONE).items() if name not in ("angle_unit", "vectors_mm")
    }
    write_json(tmp_path / "g.json", about)
    with pytest.raises(UserError, match=r'g.json: it does not tell the unit of its angles: add "angle_unit"'):
        read_scan_geometry(tmp_path / "g.json")
    write_json(tmp_path / "g.json", {**about, "angle_unit": "degrees"})
    assert read_scan_geometry(tmp_path / "g.json") == CONE
