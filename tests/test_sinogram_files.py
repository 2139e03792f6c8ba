"""Measured sinograms from every format, raw counts to line integrals, and one line for what is wrong."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import tifffile
from PIL import Image

from padis_jax.errors import UserError
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.measurements.line_integrals import line_integrals
from padis_jax.measurements.load import MeasuredScan, MeasurementConfig, load_scan
from padis_jax.measurements.scaled import scaled_scan
from padis_jax.measurements.sinogram_files import open_sinogram
from padis_jax.window import Window


def read_sinogram(path, *, row=0, axes="views,rows,bins"):
    """Of the axes that are named, whatever the geometry."""
    held = open_sinogram(path)
    return held.read(held.order(axes)[0], row=row)


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
    np.testing.assert_allclose(scan.relative_std, 1 / np.sqrt(counts - dark.mean(0)), rtol=1e-5)
    assert scan.repaired == 0


def test_counts_tell_the_noise_of_each_ray():
    """Of photons counted with a gain that nobody tells; of line integrals all that is known is one number."""
    rng, gain, photons = np.random.default_rng(3), 7.0, 2e4
    lines = 3 * np.sin(np.linspace(0, np.pi, 400)) * np.ones((30, 1))
    counts = gain * rng.poisson(photons * np.exp(-lines))
    found = line_integrals(counts, gain * photons)
    geometry = ScanGeometry("parallel", tuple(np.arange(30.0)), "degrees", 400, 1.0)
    window, config = Window("1", 0.0, 1.0), MeasurementConfig(attenuation=0.02, pixel_mm=1.0)
    scan = MeasuredScan(found.sinogram, geometry, 0, relative_std=found.relative_std)
    std = np.asarray(scaled_scan(config, scan, window, (16, 16)).measurement.noise_std)
    expected = np.exp(lines / 2) / np.sqrt(photons) / 0.02  # in image value times pixels
    assert 0.95 < np.median(std / expected) < 1.05 and np.std(std / expected) < 0.05
    for change in ({"noise": 0.01}, {}):
        told = dataclasses.replace(config, **change)
        kept = scan if change else scan._replace(relative_std=None)
        one = np.asarray(scaled_scan(told, kept, window, (16, 16)).measurement.noise_std)
        assert np.ptp(one) == 0 and (not change or np.isclose(one.max(), 0.01 / 0.02))


COUNTS = np.rint(np.exp(-LINES) * 50000 + 100).astype(np.uint16)
PARALLEL = ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 1.0)


def _geometry(folder, **fields):
    write_geometry(folder / "g.json", dataclasses.replace(PARALLEL, **fields))
    return str(folder / "g.json")


def _exchange(path, *, rows=3, theta="degrees"):
    with h5py.File(path, "w") as file:
        for name, values in {
            "data": COUNTS,
            "data_white": np.full((4, 8), 50100),
            "data_dark": np.full((2, 8), 100),
        }.items():
            file[f"exchange/{name}"] = np.stack([values + 7] * (rows - 1) + [values], 1).astype(np.uint16)
        file["exchange/theta"] = ANGLES if theta == "degrees" else np.radians(ANGLES)
        file["exchange/theta"].attrs["units"] = theta
    return str(path)


@pytest.mark.parametrize("theta", ["degrees", "radians"])
def test_data_exchange_files_are_counts_with_their_fields_and_angles(tmp_path, theta):
    path = _exchange(tmp_path / "dx.h5", theta=theta)
    (tmp_path / "no.json").write_text('{"beam": "parallel", "bins": 8, "spacing_mm": 1.0}')
    for geometry in ("no.json", "g.json"):
        _geometry(tmp_path)
        scan = load_scan(MeasurementConfig(path=path, geometry=str(tmp_path / geometry), row=2))
        np.testing.assert_allclose(scan.sinogram, LINES, atol=1e-4)
        np.testing.assert_allclose(scan.geometry.radians, np.radians(ANGLES), atol=1e-6)
        assert scan.notes == ("exchange/data is taken for counts, since there is a flat field: see --measurement.kind",)
    with pytest.raises(UserError, match="has 3 detector rows; there is no row 3"):
        load_scan(MeasurementConfig(path=path, geometry=str(tmp_path / "g.json"), row=3))


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "h5", "tif"])
@pytest.mark.parametrize("axes", ["bins,views", "rows,views,bins", "bins,views,rows"])
def test_axes_in_any_order(tmp_path, kind, axes):
    """With the flat and dark fields in the same order; the geometry refuses a wrong one and names the right one."""
    names = axes.split(",")
    counts, flat, dark = COUNTS, np.full((4, 8), 50100, np.uint16), np.full((2, 8), 100, np.uint16)

    def laid(values):
        stack = np.stack([values + 3, values, values + 5], 1) if "rows" in names else values
        order = ("views", "rows", "bins") if "rows" in names else ("views", "bins")
        return np.ascontiguousarray(stack.transpose([order.index(name) for name in names]))

    arrays = {"projections": laid(counts), "flat": laid(flat), "dark": laid(dark)}
    path, config = tmp_path / f"s.{kind}", {"geometry": _geometry(tmp_path), "row": 1 if "rows" in names else 0}
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "mat":
        scipy.io.savemat(path, arrays, do_compression=True)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    else:
        values = laid(LINES)
        tifffile.imwrite(path, values, photometric="minisblack") if kind == "tif" else np.save(path, values)
    scan = load_scan(MeasurementConfig(path=str(path), axes=axes, **config))
    np.testing.assert_allclose(scan.sinogram, LINES, atol=1e-4)
    with pytest.raises(
        UserError, match=rf"views of .* bins, but the geometry has 5 of 8; read as {axes} it fits: give"
    ):
        load_scan(MeasurementConfig(path=str(path), **config))


def test_an_order_that_nothing_decides_is_told(tmp_path):
    np.save(tmp_path / "s.npy", np.random.default_rng(0).random((8, 8)))
    geometry = _geometry(tmp_path, angles=tuple(np.arange(8.0)))
    scan = load_scan(MeasurementConfig(path=str(tmp_path / "s.npy"), geometry=geometry))
    assert scan.notes == ("sinogram (8, 8) was read as views,bins; bins,views would fit too: see --measurement.axes",)
    other = load_scan(MeasurementConfig(path=str(tmp_path / "s.npy"), geometry=geometry, axes="bins,views"))
    np.testing.assert_array_equal(other.sinogram, scan.sinogram.T)
    for axes in ("views", "views,views", "views,rows", "views,bins,bins", "x,y,z", "views,rows,bins,rows"):
        with pytest.raises(UserError, match="measurement.axes is"):
            MeasurementConfig(axes=axes)
    np.save(tmp_path / "v.npy", np.ones((8, 2, 8)))
    with pytest.raises(UserError, match="has 3 axes, but --measurement.axes bins,views names 2"):
        load_scan(MeasurementConfig(path=str(tmp_path / "v.npy"), geometry=geometry, axes="bins,views"))


def test_counts_are_told_from_line_integrals_or_asked_for(tmp_path):
    def load(arrays, **config):
        np.savez(tmp_path / "s.npz", **arrays)
        return load_scan(MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=_geometry(tmp_path), **config))

    for values in (COUNTS, COUNTS.astype(np.float32), COUNTS.astype(">i4")):
        with pytest.raises(UserError, match=r"whole numbers up to .* look like counts.*--measurement.kind counts or"):
            load({"sinogram": values})
        for config in ({"kind": "counts"}, {"counts": True}, {}):
            scan = load({"sinogram": values}, flat=50100.0, dark=100.0, **config)
            np.testing.assert_allclose(scan.sinogram, LINES, atol=1e-4)
            assert bool(scan.notes) == (not config)
        np.testing.assert_array_equal(load({"sinogram": values}, kind="line-integrals").sinogram, values)
    np.testing.assert_array_equal(load({"sinogram": LINES}).sinogram, LINES)
    np.testing.assert_array_equal(load({"sinogram": (LINES * 900).astype(int)}).sinogram, (LINES * 900).astype(int))
    with pytest.raises(UserError, match="has a flat field beside it, but no value beyond .*; give --measurement.kind"):
        load({"sinogram": LINES, "flat": np.full(8, 50000.0)})
    with pytest.raises(UserError, match="measurement.kind is 'line-integrals'"):
        MeasurementConfig(counts=True, kind="line-integrals")


def test_a_sparse_matrix_beside_the_sinogram_is_left_in_the_file(tmp_path):
    """As in the FIPS data: the system matrix A, of any size, beside m [bins, views]."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 39360, 4000), rng.integers(0, 107584, 4000)
    matrix = scipy.sparse.csc_matrix((rng.random(4000), places), (39360, 107584))
    scipy.io.savemat(tmp_path / "f.mat", {"A": matrix, "m": LINES.T}, do_compression=True)
    config = MeasurementConfig(path=str(tmp_path / "f.mat"), geometry=_geometry(tmp_path), axes="bins,views")
    np.testing.assert_array_equal(load_scan(config).sinogram, LINES)


def test_a_geometry_without_angles_names_what_was_looked_for(tmp_path):
    (tmp_path / "g.json").write_text('{"beam": "parallel", "bins": 8, "spacing_mm": 1.0}')
    config = MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "g.json"))
    np.savez(tmp_path / "s.npz", sinogram=LINES)
    with pytest.raises(
        UserError, match=r"no `angles`, and beside the sinogram none of angles_degrees, .*theta.* was found"
    ):
        load_scan(config)
    np.savez(tmp_path / "s.npz", sinogram=LINES, theta=ANGLES)
    with pytest.raises(UserError, match='does not tell the unit of its angles: add "angle_unit"'):
        load_scan(config)
    (tmp_path / "g.json").write_text('{"beam": "parallel", "bins": 8, "spacing_mm": 1.0, "angle_unit": "degrees"}')
    assert load_scan(config).geometry == PARALLEL


def test_other_arrays_of_a_data_exchange_file_are_passed_over(tmp_path):
    path = _exchange(tmp_path / "dx.h5")
    with h5py.File(path, "a") as file:
        file["measurement/instrument/data"] = np.ones((4, 4))
    assert open_sinogram(path).name == "exchange/data"


@pytest.mark.parametrize(
    ("unit", "last", "words"),
    [
        ("degrees", 3.1, "span 3.1 degrees only: are they radians"),
        ("radians", 179.0, "span 179 radians: are they degrees"),
        ("degrees", 179.0, ""),
        ("radians", 6.2, ""),
    ],
)
def test_angles_that_look_like_the_other_unit_are_told(tmp_path, unit, last, words):
    angles = np.linspace(0, last, 20).tolist()
    about = {"beam": "parallel", "angles": angles, "angle_unit": unit, "bins": 6, "spacing_mm": 1.0}
    (tmp_path / "g.json").write_text(json.dumps(about))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((20, 6)))
    notes = load_scan(MeasurementConfig(path=str(tmp_path / "y.npy"), geometry=str(tmp_path / "g.json"))).notes
    assert (words in notes[0]) if words else notes == ()


def test_angles_may_be_in_the_sinograms_file(tmp_path):
    np.savez(tmp_path / "s.npz", sinogram=LINES, angles_degrees=ANGLES)
    (tmp_path / "g.json").write_text('{"beam": "parallel", "bins": 8, "spacing_mm": 0.5}')
    scan = load_scan(MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "g.json")))
    assert scan.geometry == ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 0.5)
    with pytest.raises(UserError, match="measurement.check needs a measurement"):
        MeasurementConfig(check=True)


def test_other_angles_beside_the_sinogram_are_told(tmp_path):
    np.savez(tmp_path / "s.npz", sinogram=LINES, angles_degrees=ANGLES + 1)
    config = MeasurementConfig(path=str(tmp_path / "s.npz"), geometry=str(tmp_path / "g.json"))
    write_geometry(tmp_path / "g.json", ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 0.5))
    scan = load_scan(config)
    assert scan.geometry.angles == tuple(ANGLES)
    assert "used, 5 from 0 to 144 degrees; beside the sinogram are 5 others, from 1 to 145" in scan.notes[0]
    same = ScanGeometry("parallel", tuple(np.radians(ANGLES + 1)), "radians", 8, 0.5)
    write_geometry(tmp_path / "g.json", same)
    assert load_scan(config).notes == ()


def test_fields_that_cannot_be_those_of_the_counts(tmp_path):
    write_geometry(tmp_path / "g.json", ScanGeometry("parallel", tuple(ANGLES), "degrees", 8, 0.5))

    def load(stored=None, **settings):
        fields = {} if stored is None else {"flat": np.full(8, stored)}
        np.savez(tmp_path / "s.npz", counts=1000 * np.exp(-LINES), **fields)
        path, geometry = str(tmp_path / "s.npz"), str(tmp_path / "g.json")
        return load_scan(MeasurementConfig(path=path, geometry=geometry, **settings))

    np.testing.assert_allclose(load(1000).sinogram, LINES, atol=1e-5)
    assert load(800).repaired == 0  # the tube may drift
    with pytest.raises(UserError, match="most counts are above the flat field, by the factor .* --measurement.flat"):
        load(10)
    with pytest.raises(UserError, match="most counts are above the flat field"):
        load(flat=1.0)
    assert load(1000).notes == load(flat=1000.0).notes == ()
    both = load(1000, flat=900.0, dark=3.0)
    assert both.notes == ("the file has a flat field, used instead of --measurement.flat",)
    np.testing.assert_allclose(both.sinogram, load(1000, dark=3.0).sinogram)
    with pytest.raises(UserError, match="--measurement.dark goes with counts, and counts is read as line integrals"):
        load(kind="line-integrals", dark=3.0)


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


@pytest.mark.parametrize("kind", ["npz", "mat", "mat 7.3", "h5", "structure"])
@pytest.mark.parametrize("name", ["counts", "flat", "DARK", "angles_degrees"])
@pytest.mark.parametrize("value", [np.full((5, 8), 1j), np.zeros((0, 8)), "text"], ids=["complex", "empty", "text"])
def test_what_is_no_real_numbers_is_refused_not_passed_over(tmp_path, kind, name, value):
    if kind == "structure" and isinstance(value, str):
        pytest.skip("a text in a structure is no array of it")
    arrays = {"counts": LINES + 1, name: value}
    if kind in ("h5", "mat 7.3"):
        file = tmp_path / ("s.h5" if kind == "h5" else "s.mat")
        with h5py.File(file, "w") as opened:
            for key, array in arrays.items():
                opened[key] = array
    elif kind == "npz":
        np.savez(file := tmp_path / "s.npz", **arrays)
    else:
        scipy.io.savemat(file := tmp_path / "s.mat", {"scan": arrays} if kind == "structure" else arrays)
    with pytest.raises(UserError, match=rf"{name} (is empty|holds no real numbers).* take it out of the file"):
        open_sinogram(file)


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
        ("o.npz", {}, "o.npz: sinogram holds no real numbers (object): store it as real numbers"),
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
