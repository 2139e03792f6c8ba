"""The check finds each fault that is put in: in a simulated scan, and in the real one where it is there."""

import dataclasses
import functools
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from padis_jax.cli.geometry import describe
from padis_jax.measurements import geometry_arcs, geometry_check
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.geometry_check import check_geometry, find_offset
from padis_jax.measurements.geometry_residual import Correction
from studies.geometry_trials import Trial, line_integrals, random_scan, trials, verdict

VIEWS, BINS = 60, 64
FAN = ScanGeometry("fan", tuple(np.arange(VIEWS) * 6.0), "degrees", BINS, 1.0, 0.0, 60.0, 30.0)
PARALLEL = ScanGeometry("parallel", tuple(np.arange(VIEWS) * 3.0), "degrees", BINS, 1.0)
HTC = Path(os.environ.get("HTC2022", ""))  # the user's copy; it is not part of the project
REVERSED = "reversed detector or sense of rotation"


def _phantom(side=64):
    y, x = np.mgrid[1 : -1 : side * 1j, -1 : 1 : side * 1j]
    disc = (np.hypot(x, y) < 0.75).astype(np.float32)
    for cx, cy, r in ((0.35, 0.3, 0.15), (-0.4, 0.1, 0.1), (0.1, -0.45, 0.2), (-0.2, 0.5, 0.08)):
        disc[np.hypot(x - cx, y - cy) < r] = 0
    return jnp.asarray(disc)


def _measured(geometry):
    """What the scan measures, with pixels that are not those of the check."""
    pixel = FAN.field_mm / 64 if geometry.beam == "fan" else 1.0
    return np.asarray(geometry.operator((64, 64), pixel)(_phantom()))


@pytest.fixture(autouse=True)
def fewer_steps(request, monkeypatch):
    """The check of a small simulated scan needs no more; the real one has all of them."""
    if "htc" not in request.fixturenames:
        monkeypatch.setattr(geometry_arcs, "FINE", 20)
        monkeypatch.setattr(geometry_arcs, "COARSE", 8)


def _fan_cases():
    """name -> (true geometry, what is done to its sinogram, faults)."""
    change = functools.partial(dataclasses.replace, FAN)
    return {
        "right": (FAN, lambda y: y, ()),
        "reversed detector": (FAN, lambda y: y[:, ::-1], (REVERSED,)),
        "angles of the other sign": (change(angles=tuple(-a for a in FAN.angles)), lambda y: y, (REVERSED,)),
        "shifted": (change(offset_mm=3.3), lambda y: y, ("shifted detector",)),
    }


@pytest.mark.parametrize("case", _fan_cases())
def test_faults_of_a_fan_beam(case):
    true, change, faults = _fan_cases()[case]
    report = check_geometry(FAN, change(_measured(true)))
    assert report.best.correction.faults == faults, report
    corrected = report.best.correction.geometry(FAN)
    assert abs(corrected.offset_mm - true.offset_mm) < 0.3
    if case == "angles of the other sign":
        assert corrected.angles == true.angles
    if faults:  # what it says helps
        again = check_geometry(corrected, change(_measured(true))).stated
        assert again < 0.9 * report.stated


HEAD = [(0.02, 0, 0, 35, 42, 0), (0.01, 10, 8, 6, 9, 0.4), (-0.01, -12, -5, 8, 5, -0.3), (0.02, 5, -22, 4, 4, 0)]
WIDE = ScanGeometry("fan", tuple(np.arange(120) * 3.0), "degrees", 160, 1.0, 0.0, 300.0, 200.0)
NARROW = dataclasses.replace(WIDE, source_distance_mm=3000.0)
HALF = dataclasses.replace(WIDE, bins=96, offset_mm=-32.0)  # sees one half of the object, and 16 mm of the other
TURN = ScanGeometry("parallel", WIDE.angles, "degrees", 64, 1.0, 24.0)


def _noisy(geometry):
    y = line_integrals(geometry, np.asarray(HEAD))
    return y + 0.01 * np.random.default_rng(0).standard_normal(y.shape)


@pytest.mark.parametrize(
    "true",
    [pytest.param(WIDE, marks=pytest.mark.slow), NARROW, pytest.param(HALF, marks=pytest.mark.slow), TURN],
    ids=["wide", "narrow", "half fan", "half acquisition"],
)
def test_exact_scans_are_called_right_and_tell_their_axis(true):
    """Those of ellipses, with noise: no correction is advised; of another offset, the right one."""
    y = _noisy(true)
    report = check_geometry(true, y)
    assert report.best.correction.faults == () and report.stated < 0.05, report
    assert find_offset(dataclasses.replace(true, offset_mm=0.0), y) == pytest.approx(true.offset_mm, abs=0.1)
    moved = dataclasses.replace(true, offset_mm=true.offset_mm + 3)
    report = check_geometry(moved, y)
    assert report.best.correction.faults == ("shifted detector",)
    assert report.best.correction.geometry(moved).offset_mm == pytest.approx(true.offset_mm, abs=0.2)


@pytest.mark.parametrize("pitch", [pytest.param(0.85, marks=pytest.mark.slow), 1.1])
def test_the_pitch_of_a_fan_beam_or_why_it_cannot_be_told(pitch):
    stated = dataclasses.replace(WIDE, spacing_mm=pitch)
    report = check_geometry(stated, _noisy(WIDE))
    assert report.best.correction.faults == ("wrong pitch",)
    assert report.best.correction.geometry(stated).spacing_mm == pytest.approx(1, abs=0.02)
    report = check_geometry(dataclasses.replace(NARROW, spacing_mm=pitch), _noisy(NARROW))
    assert not report.best.correction.faults and report.unknown[0].startswith("the pitch (uncertain by"), report
    assert "cannot tell the pitch" in describe(report, NARROW)


def test_a_scan_that_does_not_tell_its_axis_is_refused():
    """Half a turn of an object that reaches beyond the detector."""
    arc = dataclasses.replace(TURN, angles=tuple(np.arange(90) * 2.0))
    y = _noisy(arc)
    with pytest.raises(ValueError, match="beyond the detector.*state offset_mm"):
        find_offset(arc, y)
    report = check_geometry(arc, y)
    assert not report.best.correction.faults and any("the axis (" in what for what in report.unknown)


def test_a_parallel_scan_tells_its_centre_to_a_fraction_of_a_bin():
    shifted = dataclasses.replace(PARALLEL, offset_mm=-2.4)
    data = _measured(shifted)
    assert check_geometry(PARALLEL, data).best.correction.faults == ("shifted detector",)
    assert abs(find_offset(PARALLEL, data) + 2.4) < 0.1
    half = dataclasses.replace(PARALLEL, angles=PARALLEL.angles[:30])  # a quarter turn: no view has its opposite
    assert abs(find_offset(half, data[:30]) + 2.4) < 0.2


@pytest.mark.slow
def test_an_arc_gives_no_false_alarm():
    """Of a right geometry: other corrections explain an arc nearly as well, or better by chance."""
    arc = dataclasses.replace(FAN, angles=tuple(np.arange(30) * 3.0))
    data = _measured(arc) + 0.05 * np.random.default_rng(0).standard_normal((30, BINS))
    report = check_geometry(arc, data)
    assert report.best.correction.faults == (), report


def test_the_other_unit_of_angles():
    wrong = dataclasses.replace(PARALLEL, angle_unit="radians")
    report = check_geometry(wrong, _measured(PARALLEL))
    assert report.best.correction == Correction(other_unit=True)
    assert report.best.correction.geometry(wrong) == PARALLEL


def test_the_other_unit_of_a_scan_that_begins_anywhere():
    late = dataclasses.replace(FAN, angles=tuple(a + 300.0 for a in FAN.angles))
    wrong = dataclasses.replace(late, angles=tuple(late.radians))
    assert check_geometry(wrong, _measured(late)).best.correction == Correction(other_unit=True)


@pytest.mark.slow
def test_an_arc_that_either_sense_explains_is_called_so():
    scan = random_scan(np.random.default_rng(2002))  # 150 degrees of a fan on 112 bins
    found = {t.fault: verdict(t) for t in trials(*scan) if t.fault in ("", "sense of rotation")}
    assert found == {"": "right", "sense of rotation": "cannot tell"}


def test_an_arc_without_a_line_measured_twice_is_told_nothing_by_pairs():
    """By another axis a few lines of 149 degrees would be, which agree a little better than by chance."""
    scan = random_scan(np.random.default_rng(12188))
    assert geometry_check._by_pairs(*scan) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6007, 6020])  # 149 degrees of a fan on 76 and 204 bins
def test_an_arc_is_not_told_a_shift(seed):
    """With the detector reversed and shifted, or another pitch, an image explains it nearly as well."""
    geometry, data = random_scan(np.random.default_rng(seed))
    found = {t.fault: verdict(t) for t in trials(geometry, data) if t.fault in ("shift", "pitch x 1.1")}
    assert found == {"shift": "cannot tell", "pitch x 1.1": "cannot tell"}
    moved = dataclasses.replace(geometry, offset_mm=geometry.offset_mm + 0.05 * geometry.bins * geometry.spacing_mm)
    assert any("one of them is wrong" in what for what in check_geometry(moved, data).unknown)


def test_views_of_a_parallel_beam_in_reverse_are_no_fault():
    """Evenly spaced ones are the mirror image, whose exact views agree as well, or by rounding better."""
    geometry, data = random_scan(np.random.default_rng(10036))
    found = {t.fault: verdict(t) for t in trials(geometry, data) if t.fault in ("", "shift")}
    assert found == {"": "right", "shift": "found"}


def _third_left_out(data):
    return np.arange(len(data)) % 3 != 2, data


def _smoothed(data):
    within = np.arange(len(data)) % (len(data) - 1) > 0
    return within, (np.roll(data, 1, 0) + 2 * data + np.roll(data, -1, 0)) / 4


@pytest.mark.parametrize(("seed", "change", "pitch"), [(8103, _third_left_out, 0.85), (11008, _smoothed, 1.1)])
def test_few_views_or_bins_do_not_tell_a_pitch_to_within_their_bias(seed, change, pitch):
    """43 views of 266 degrees bias a pitch by 4.4%, which half of them show, and 68 bins by 8%, which 34 show."""
    geometry, data = random_scan(np.random.default_rng(seed))
    kept, data = change(data)
    right = dataclasses.replace(geometry, angles=tuple(np.asarray(geometry.angles)[kept]))
    about = {"spacing_mm": pitch * right.spacing_mm, "offset_mm": pitch * right.offset_mm}
    trial = Trial("pitch", dataclasses.replace(right, **about), data[kept], right, ("the pitch",))
    assert verdict(trial) == "cannot tell"


def test_unevenly_spaced_views_in_reverse_are_not_called_the_other_sense():
    """By the golden ratio: the reverse order is nearly the other sense of rotation, and not quite."""
    geometry, data = random_scan(np.random.default_rng(20099))
    (trial,) = [t for t in trials(geometry, data) if t.fault == "views"]
    assert verdict(trial) == "found"


def test_what_cannot_be_checked_is_named():
    with pytest.raises(ValueError, match="too few views"):
        check_geometry(dataclasses.replace(FAN, angles=FAN.angles[:5]), np.ones((5, BINS)))
    with pytest.raises(ValueError, match="has 60 views of 64 bins"):
        check_geometry(FAN, np.ones((5, BINS)))
    with pytest.raises(ValueError, match="NaN"):
        check_geometry(FAN, np.full((VIEWS, BINS), np.nan))
    with pytest.raises(ValueError, match="zero everywhere"):
        check_geometry(FAN, np.zeros((VIEWS, BINS)))


@pytest.fixture(scope="module")
def htc():
    """The joined arcs of the Helsinki challenge's disc b: geometry as published, line integrals."""
    if not HTC.is_file():
        pytest.skip("name the file htc2022.npz with the environment variable HTC2022")
    rows = {}
    with np.load(HTC) as file:
        for name in file.files:
            if name.startswith("tb_") and name.endswith("/sinogram"):
                angles = file[name.replace("sinogram", "angles_degrees")]
                rows |= dict(zip(angles.tolist(), file[name], strict=True))
    angles = sorted(rows)
    geometry = ScanGeometry("fan", tuple(angles), "degrees", 560, 0.2, 0.0, 410.66, 553.74 - 410.66)
    return geometry, np.stack([rows[a] for a in angles])


REAL = {
    "right": (lambda g: {}, lambda y: y, ()),
    "angles of the other sign": (lambda g: {"angles": tuple(-a for a in g.angles)}, lambda y: y, (REVERSED,)),
    "reversed detector": (lambda g: {}, lambda y: y[:, ::-1], (REVERSED,)),
    "offset stated where there is none": (lambda g: {"offset_mm": 2.4}, lambda y: y, ("shifted detector",)),
    "detector shifted by 15 bins": (lambda g: {}, lambda y: np.roll(y, 15, 1), ("shifted detector",)),
    "pitch stated too large": (lambda g: {"spacing_mm": 0.22}, lambda y: y, ("wrong pitch",)),
    "pitch stated too small": (lambda g: {"spacing_mm": 0.17}, lambda y: y, ("wrong pitch",)),
    "reversed views": (lambda g: {}, lambda y: y[::-1], ("reversed views",)),
    "degrees stated as radians": (lambda g: {"angle_unit": "radians"}, lambda y: y, ("angle unit",)),
    "radians stated as degrees": (lambda g: {"angles": tuple(g.radians)}, lambda y: y, ("angle unit",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL)
def test_faults_of_a_real_scan(htc, case):
    true, data = htc
    state, change, faults = REAL[case]
    stated, data = dataclasses.replace(true, **state(true)), change(data)
    report = check_geometry(stated, data)
    assert report.best.correction.faults == faults, report
    corrected = report.best.correction.geometry(stated)
    offset = -3.0 if "15 bins" in case else 0.0
    assert abs(corrected.offset_mm - offset) < 0.15 and abs(corrected.spacing_mm - 0.2) < 0.01
    # The correction lowers the residual, by the check's own account and when it is stated.
    assert not faults or report.best.residual < 0.95 * report.stated
    assert check_geometry(corrected, data).best.correction == Correction()
