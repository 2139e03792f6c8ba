"""Geometry files: ours and ASTRA's dictionaries give the same operators; everything else is one line."""

import dataclasses
import json

import numpy as np
import pytest

from padis_jax.errors import UserError
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry, from_astra, read_geometry, write_geometry
from padis_jax.measurements.load import log_note
from padis_jax.operators import FanBeam, ParallelBeam

FAN = ScanGeometry("fan", (0.0, 30.0, 100.0), "degrees", 12, 0.5, 0.25, 40.0, 20.0)
PARALLEL = ScanGeometry("parallel", (0.0, 0.5, 2.0), "radians", 12, 0.5)


def _astra(geometry):
    about = {"type": "parallel", "DetectorCount": geometry.bins, "DetectorWidth": geometry.spacing_mm}
    about["ProjectionAngles"] = geometry.radians.tolist()
    if geometry.beam == "fan":
        about |= {"type": "fanflat", "DistanceOriginSource": geometry.source_distance_mm}
        about |= {"DistanceOriginDetector": geometry.detector_distance_mm}
    return about


def _vectors(geometry):
    """As astra.geom_2vec makes them."""
    t, zero = geometry.radians, np.zeros(len(geometry.angles))
    along, across = np.stack([np.cos(t), np.sin(t)], 1), np.stack([-np.sin(t), np.cos(t)], 1)
    first = -across if geometry.beam == "parallel" else -geometry.source_distance_mm * across
    centre = geometry.offset_mm * along + geometry.detector_distance_mm * across + zero[:, None]
    rows = np.concatenate([first, centre, geometry.spacing_mm * along], 1)
    return {"type": geometry.beam.replace("fan", "fanflat") + "_vec", "DetectorCount": geometry.bins, "Vectors": rows}


@pytest.mark.parametrize("geometry", [FAN, PARALLEL], ids=["fan", "parallel"])
def test_a_file_comes_back(tmp_path, geometry):
    write_geometry(tmp_path / "g.json", geometry)
    assert read_geometry(tmp_path / "g.json") == geometry


@pytest.mark.parametrize("geometry", [FAN, PARALLEL], ids=["fan", "parallel"])
def test_astras_dictionaries(tmp_path, geometry):
    centred = dataclasses.replace(geometry, offset_mm=0.0)
    (tmp_path / "astra.json").write_text(json.dumps(_astra(centred)))
    found = read_geometry(tmp_path / "astra.json")
    np.testing.assert_allclose(found.radians, centred.radians)
    assert dataclasses.replace(found, angles=centred.angles, angle_unit=centred.angle_unit) == centred
    found = from_astra(_vectors(geometry), mm_per_unit=2.0)
    np.testing.assert_allclose(found.radians, geometry.radians, atol=1e-12)
    for name in ("spacing_mm", "offset_mm", "source_distance_mm", "detector_distance_mm"):
        np.testing.assert_allclose(getattr(found, name), 2 * getattr(geometry, name), atol=1e-12)


def test_operators_are_those_of_the_factories():
    pixel, shape = 0.8, (10, 9)
    scaled = {"image_shape": shape, "detector_count": 12, "detector_spacing": 0.5 / pixel}
    fan = FanBeam(
        **scaled,
        angles=np.radians(FAN.angles),
        detector_offset=0.25 / pixel,
        source_distance=40 / pixel,
        detector_distance=20 / pixel,
    )
    assert FAN.operator(shape, pixel).geometry == fan.geometry
    assert PARALLEL.operator(shape, pixel).geometry == ParallelBeam(**scaled, angles=PARALLEL.angles).geometry


def test_the_field_of_view_is_seen_by_the_outermost_bins():
    assert PARALLEL.field_mm == 6.0 and PARALLEL.magnification == 1.0 and FAN.magnification == 1.5
    # The ray of a bin at u passes the axis at d u / sqrt(u^2 + D^2).
    assert FAN.field_mm == pytest.approx(2 * 40 * 2.75 / np.hypot(2.75, 60))
    # On a full turn each half of the object is seen by the longer side of the detector.
    turn = tuple(np.arange(0.0, 360.0, 30.0).tolist())
    beside = dataclasses.replace(PARALLEL, angles=turn, angle_unit="degrees", offset_mm=1.0)
    assert beside.field_mm == 8.0
    assert dataclasses.replace(beside, offset_mm=-1.0).field_mm == 8.0
    assert dataclasses.replace(beside, offset_mm=3.1).field_mm == 0.0  # the middle is not seen
    assert dataclasses.replace(beside, angles=turn[:7], offset_mm=1.0).field_mm == 4.0
    fan = dataclasses.replace(FAN, angles=turn, angle_unit="degrees")
    assert fan.field_mm == pytest.approx(2 * 40 * 3.25 / np.hypot(3.25, 60))


def test_a_detector_that_does_not_see_the_axis_needs_the_pixel_size():
    beside = dataclasses.replace(PARALLEL, offset_mm=3.1)
    with pytest.raises(UserError, match="offset_mm 3.1, no place is seen by every view.*--measurement.pixel-mm"):
        beside.operator((4, 4), beside.field_mm / 4)
    assert beside.operator((4, 4), 0.5).measurement_shape == (3, 12)


GOOD = {"beam": "parallel", "angles": [0, 1], "angle_unit": "radians", "bins": 4, "spacing_mm": 1.0}
BAD = {
    "no JSON": ("{", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "large": ("[" + "[]," * 2**23 + "0]", "more than 16777216 bytes"),
    "long": ("[" + "[]," * 2**21 + "0]", "6291459 characters, more than 4194304"),
    "a list": ("[1]", "expected an object"),
    "missing": (json.dumps({"beam": "parallel"}), "angles"),
    "no unit": (json.dumps({k: v for k, v in GOOD.items() if k != "angle_unit"}), "angle_unit"),
    "unknown field": (json.dumps(GOOD | {"pitch": 1}), "unknown field 'pitch'"),
    "unit": (json.dumps(GOOD | {"angle_unit": "grad"}), "angle_unit is 'grad'"),
    "beam": (json.dumps(GOOD | {"beam": "cone"}), "beam is 'cone'"),
    "NaN": (json.dumps(GOOD | {"angles": [0, float("nan")]}), "angles"),
    "infinite": (json.dumps(GOOD | {"spacing_mm": float("inf")}), "spacing_mm inf"),
    "no spacing": (json.dumps(GOOD | {"spacing_mm": 1e-40}), "spacing_mm is 1e-40: give a length in mm"),
    "huge spacing": (json.dumps(GOOD | {"spacing_mm": 1e300}), "spacing_mm is 1e+300"),
    "huge offset": (json.dumps(GOOD | {"offset_mm": -1e300}), "offset_mm is -1e+300"),
    "no angles": (json.dumps(GOOD | {"angles": []}), "angles"),
    "text": (json.dumps(GOOD | {"bins": "four"}), "bins is 'four'"),
    "no bins": (json.dumps(GOOD | {"bins": 0}), "bins 0"),
    "fan without distances": (json.dumps(GOOD | {"beam": "fan"}), "source_distance_mm"),
    "parallel with distances": (json.dumps(GOOD | {"source_distance_mm": 3.0}), "leave them out"),
    "astra type": (json.dumps({"type": "cone"}), "type 'cone'"),
    "astra without width": (
        json.dumps({"type": "parallel", "DetectorCount": 3, "ProjectionAngles": [0.0]}),
        "DetectorWidth",
    ),
    "astra angles": (json.dumps(_astra(PARALLEL) | {"ProjectionAngles": [[0], [1, 2]]}), "ProjectionAngles"),
    "astra bins": (json.dumps(_astra(PARALLEL) | {"DetectorCount": 3.5}), "whole number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named(tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(UserError) as refused:
        read_geometry(tmp_path / "g.json")
    assert "g.json" in str(refused.value) and message in str(refused.value) and "\n" not in str(refused.value)


def test_vectors_of_no_regular_turn_are_named():
    good = _vectors(FAN)
    for column, message in ((0, "source"), (4, "spacing"), (2, "offset")):
        vectors = good["Vectors"].copy()
        vectors[1, column] += 0.3
        with pytest.raises(ValueError, match=message):
            from_astra(good | {"Vectors": vectors})
    flipped = good["Vectors"].copy()
    flipped[:, 4:] *= -1
    with pytest.raises(ValueError, match="in the opposite direction"):
        from_astra(good | {"Vectors": flipped})
    with pytest.raises(UserError, match=r"image's corners|source"):
        FAN.operator((300, 300), 1.0)


def test_angles_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match="angles: all 20 are 0: give one for each view"):
        ScanGeometry("parallel", (0.0,) * 20, "degrees", 32, 1.0)
    assert ScanGeometry("parallel", (0.0,), "degrees", 32, 1.0).angles == (0.0,)
    with pytest.raises(ValueError, match="angles: all 3 are 5"):
        ConeScan("cone", 8, 8, (5.0,) * 3, "degrees", 1.0, 1.0, source_distance_mm=100.0, detector_distance_mm=50.0)


def test_values_before_the_logarithm_are_noted():
    image = np.hypot(*np.mgrid[-1:1:32j, -1:1:32j]) < 0.6
    geometry = ScanGeometry("parallel", tuple(range(0, 180, 9)), "degrees", 48, 1.0)
    sums = 0.03 * np.asarray(geometry.operator((32, 32), 1.0)(image.astype(np.float32)))
    assert log_note(sums) == "" and log_note(np.zeros((20, 48))) == ""
    assert "larger at the edges of the detector" in log_note(np.exp(-sums))
    assert "larger at the edges of the detector" in log_note(900 * np.exp(-sums))
    assert "negative on average" in log_note(-sums)
    assert log_note(sums[:, 14:34]) == ""  # a detector that does not see past the object
