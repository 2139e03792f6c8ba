"""Geometry files of cone beams: ours, ASTRA's dictionaries and RTK's XML; mistakes in them are one line."""

import dataclasses
import json

import numpy as np
import pytest

from padis_jax.errors import UserError
from padis_jax.files import write_json
from padis_jax.measurements.cone_geometry import ConeScan, check_memory, cone_from_astra
from padis_jax.measurements.geometry import ScanGeometry, read_geometry
from padis_jax.measurements.rtk_geometry import read_rtk
from padis_jax.measurements.volume_scan import read_scan_geometry
from padis_jax.operators import ConeBeam
from padis_jax.operators.working_memory import working_memory

SCAN = ConeScan("cone", 6, 10, (0.0, 30.0, 100.0), "degrees", 0.7, 0.5, 0.1, 0.25, 40.0, 20.0)
PLACED = ConeScan("cone", 6, 10, vectors_mm=tuple(map(tuple, SCAN.placed.tolist())))
# Written by RTK 2.7: (source to isocentre 200, to detector 320, gantry 30 degrees, projection offsets 3 and -4, out of
# plane 0.5 and in plane -0.7 degrees, source offsets 1 and 2); it puts the source at (100.892, 0.242251, 172.701).
RTK = """<?xml version="1.0"?>
<!DOCTYPE RTKGEOMETRY>
<RTKThreeDCircularGeometry version="3">
    <SourceToIsocenterDistance>200</SourceToIsocenterDistance>
    <SourceToDetectorDistance>320</SourceToDetectorDistance>
  <Projection>
    <GantryAngle>10</GantryAngle>
    <Matrix>
        -315.138480963907                   0    55.5674168534177                   0
                        0                -320                   0                   0
         0.17364817766693                   0   0.984807753012208                -200
    </Matrix>
  </Projection>
  <Projection>
    <GantryAngle>30</GantryAngle>
    <Matrix>
        -278.090351033068    3.92674447876966    158.285619498752                 720
        -1.78193029429967   -320.016293794212    4.73248672928501                -560
        0.499980961532086 -0.00872653549837393   0.865992428190713                -200
    </Matrix>
  </Projection>
</RTKThreeDCircularGeometry>
"""
DETECTOR = dict(detector_shape=(6, 10), spacing_mm=(0.7, 0.5))


@pytest.mark.parametrize("scan", [SCAN, PLACED], ids=["orbit", "vectors"])
def test_a_file_comes_back_and_is_no_slices(tmp_path, scan):
    write_json(tmp_path / "g.json", scan)
    assert read_scan_geometry(tmp_path / "g.json") == scan
    with pytest.raises(UserError, match="g.json: beam is 'cone': this is the geometry of a volume"):
        read_geometry(tmp_path / "g.json")


def test_geometries_of_slices_are_read_as_before(tmp_path):
    fan = ScanGeometry("fan", (0.0, 30.0), "degrees", 12, 0.5, 0.25, 40.0, 20.0)
    write_json(tmp_path / "g.json", fan)
    assert read_scan_geometry(tmp_path / "g.json") == fan
    about = json.loads((tmp_path / "g.json").read_text())
    about.pop("angles")
    (tmp_path / "g.json").write_text(json.dumps(about))
    assert read_scan_geometry(tmp_path / "g.json", angles=(0.0, 30.0)) == fan
    cone = {k: v for k, v in dataclasses.asdict(SCAN).items() if k not in ("angles", "vectors_mm")}
    (tmp_path / "c.json").write_text(json.dumps(cone))
    assert read_scan_geometry(tmp_path / "c.json", angles=SCAN.angles) == SCAN


def test_operators_are_those_of_the_factory():
    about = dict(volume_shape=(4, 6, 5), detector_shape=(6, 10), slice_spacing=1.5)
    expected = ConeBeam(
        **about,
        angles=np.radians(SCAN.angles),
        detector_spacing=(0.7 / 0.8, 0.5 / 0.8),
        detector_offset=(0.1 / 0.8, 0.25 / 0.8),
        source_distance=40 / 0.8,
        detector_distance=20 / 0.8,
    )
    for scan in (SCAN, PLACED):
        found = scan.operator((4, 6, 5), 0.8, 1.2)
        np.testing.assert_allclose(found.geometry.vectors, expected.geometry.vectors, atol=1e-12)
        assert found.geometry.slice_spacing == pytest.approx(1.5)


def test_the_field_of_view_is_that_of_the_fan_in_the_middle():
    fan = ScanGeometry("fan", SCAN.angles, "degrees", 10, 0.5, 0.25, 40.0, 20.0)
    assert SCAN.field_mm == pytest.approx(fan.field_mm) and PLACED.field_mm == pytest.approx(fan.field_mm)
    turn = dataclasses.replace(SCAN, angles=tuple(np.arange(0.0, 360.0, 20.0).tolist()), column_offset_mm=2.0)
    assert turn.field_mm == pytest.approx(2 * 40 * 4.5 / np.hypot(4.5, 60))  # a half fan sees to its longer side
    source = [list(numbers) for numbers in PLACED.vectors_mm]
    source[1][2] += 30.0
    with pytest.raises(UserError, match="no circular orbit about the z axis: give the size of a voxel"):
        dataclasses.replace(PLACED, vectors_mm=tuple(map(tuple, source))).field_mm  # noqa: B018


def test_rays_beside_the_detector_are_said_but_not_those_of_a_half_fan():
    turn = tuple(np.arange(0.0, 360.0, 20.0).tolist())
    wide = dataclasses.replace(SCAN, angles=turn, columns=20, rows=20, row_offset_mm=0.0, column_offset_mm=0.0)
    assert wide.note((4, 6, 6), 0.9, 0.9) == ""
    half = dataclasses.replace(wide, columns=10, column_offset_mm=2.4)
    assert half.note((4, 6, 6), 0.9, 0.9) == ""
    arc = dataclasses.replace(half, angles=turn[:10])
    note = arc.note((4, 6, 6), 0.9, 0.9)
    assert note.endswith("leave it out") and 20 < float(note.partition("%")[0]) < 60
    low = dataclasses.replace(wide, rows=2)
    assert 30 < float(low.note((4, 6, 6), 0.9, 0.9).partition("%")[0]) < 80


def test_astras_dictionaries():
    about = {"type": "cone", "DetectorRowCount": 6, "DetectorColCount": 10, "DetectorSpacingX": 0.5}
    about |= {"DetectorSpacingY": 0.7, "ProjectionAngles": np.radians(SCAN.angles)}
    about |= {"DistanceOriginSource": 40.0, "DistanceOriginDetector": 20.0}
    centred = dataclasses.replace(SCAN, row_offset_mm=0.0, column_offset_mm=0.0)
    np.testing.assert_allclose(cone_from_astra(about).placed, centred.placed, atol=1e-12)
    vectors = {"type": "cone_vec", "DetectorRowCount": 6, "DetectorColCount": 10, "Vectors": SCAN.placed}
    np.testing.assert_allclose(cone_from_astra(vectors, mm_per_unit=2.0).placed, 2 * SCAN.placed)


def test_astras_own_vectors():
    astra = pytest.importorskip("astra")
    about = astra.create_proj_geom("cone", 0.5, 0.7, 6, 10, np.radians(SCAN.angles), 40.0, 20.0)
    placed = cone_from_astra(astra.geom_2vec(about))
    np.testing.assert_allclose(cone_from_astra(about).placed, placed.placed, atol=1e-12)


def test_rtks_file(tmp_path):
    (tmp_path / "g.xml").write_text(RTK)
    scan = read_rtk(tmp_path / "g.xml", **DETECTOR)
    placed = scan.placed.reshape(-1, 4, 3)
    orbit = ConeScan("cone", 6, 10, (10.0,), "degrees", 0.7, 0.5, 0.0, 0.0, 200.0, 120.0)
    np.testing.assert_allclose(placed[0], orbit.placed.reshape(4, 3), atol=1e-9)
    np.testing.assert_allclose(placed[1, 0], [100.892, -172.701, 0.242251], atol=1e-3)
    assert np.linalg.norm(placed[1, 2:], axis=1) == pytest.approx([0.5, 0.7])
    moved = read_rtk(tmp_path / "g.xml", **DETECTOR, origin_mm=(0.0, 0.0)).placed.reshape(-1, 4, 3)
    np.testing.assert_allclose(moved[:, 1] - placed[:, 1], 4.5 * placed[:, 2] + 2.5 * placed[:, 3], atol=1e-9)


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><RTKThreeDCircularGeometry>&b;</RTKThreeDCircularGeometry>'
)
OUTSIDE = '<!DOCTYPE x SYSTEM "file:///etc/hostname"><RTKThreeDCircularGeometry/>'
BAD_XML = {
    "no XML": ("{}", "no RTK geometry: not well-formed"),
    "cut": (RTK[:300], "no RTK geometry"),
    "another root": ("<a/>", "its root is <a>, expected <RTKThreeDCircularGeometry>"),
    "entities": (BOMB, "declares a document type of its own, which an RTK geometry never does; refused"),
    "another file": (OUTSIDE, "declares a document type of its own"),
    "deep": ("<RTKThreeDCircularGeometry>" + "<a>" * 50, "nests more than 8 elements"),
    "empty": ("<RTKThreeDCircularGeometry/>", "has no projections"),
    "no matrix": (RTK.replace("Matrix", "Other"), "projection 0: its Matrix has 0 numbers"),
    "not numbers": (RTK.replace("-320 ", "x "), "no RTK geometry: could not convert string to float"),
    "not finite": (RTK.replace("-315.138480963907", "nan"), "projection 0: its Matrix has 12 numbers, expected 12 fin"),
    "parallel": (RTK.replace(">320<", ">0<"), "SourceToDetectorDistance is missing or not positive"),
    "singular": (RTK.replace("-315.138480963907 ", "0 ").replace("55.5674168534177", "0"), "its Matrix has no inverse"),
    "cylinder": (
        RTK.replace("<Projection>", "<RadiusCylindricalDetector>9</RadiusCylindricalDetector><Projection>", 1),
        "a cylindrical detector is not supported",
    ),
}


@pytest.mark.parametrize("case", BAD_XML)
def test_mistakes_in_rtks_file_are_named(tmp_path, case):
    text, message = BAD_XML[case]
    (tmp_path / "g.xml").write_text(text)
    with pytest.raises(UserError) as refused:
        read_rtk(tmp_path / "g.xml", **DETECTOR)
    assert "g.xml" in str(refused.value) and message in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.xml: .*No such file"):
        read_rtk(tmp_path / "none.xml", **DETECTOR)


GOOD = json.loads(json.dumps(dataclasses.asdict(SCAN)))
VECTORS = json.loads(json.dumps(dataclasses.asdict(PLACED)))
BAD = {
    "unknown field": (GOOD | {"bins": 3}, "unknown field 'bins'"),
    "no rows": (GOOD | {"rows": 0}, "rows 0"),
    "no angles": (GOOD | {"angles": []}, "give angles"),
    "both": (VECTORS | {"angles": [1.0]}, "give angles"),
    "NaN": (GOOD | {"angles": [float("nan")]}, "angles: all must be finite"),
    "spacing": (GOOD | {"row_spacing_mm": 0.0}, "row_spacing_mm is 0.0: it must be positive"),
    "distance": (GOOD | {"source_distance_mm": float("inf")}, "source_distance_mm is inf"),
    "detector": (GOOD | {"detector_distance_mm": -1.0}, "detector_distance_mm is -1.0"),
    "parallel steps": (
        VECTORS | {"vectors_mm": [VECTORS["vectors_mm"][0], [0.0, -9, 0, 0, 9, 0, 1, 0, 0, 2, 0, 0]]},
        "vectors_mm[1]: the detector is seen from its edge",
    ),
    "source in the plane": (
        VECTORS | {"vectors_mm": [[5.0, 9, 0, 0, 9, 0, 1, 0, 0, 0, 0, 1]]},
        "vectors_mm[0]: the detector is seen from its edge",
    ),
    "no step": (VECTORS | {"vectors_mm": [[0.0, -9, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1]]}, "vectors_mm[0]: the detector is"),
    "eleven": (VECTORS | {"vectors_mm": [[0.0] * 11]}, "vectors_mm[0]: expected 12 finite numbers, got 11"),
    "superfluous": (VECTORS | {"row_offset_mm": 1.0}, "leave out row_offset_mm"),
    "astra type": ({"type": "cone_beam"}, "type 'cone_beam'; use cone or cone_vec"),
    "astra rows": ({"type": "cone", "DetectorRowCount": 2.5, "DetectorColCount": 3}, "DetectorRowCount is 2.5"),
    "astra spacing": ({"type": "cone", "DetectorRowCount": 2, "DetectorColCount": 3}, "ProjectionAngles"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named(tmp_path, case):
    value, message = BAD[case]
    (tmp_path / "g.json").write_text(json.dumps(value))
    with pytest.raises(UserError) as refused:
        read_scan_geometry(tmp_path / "g.json")
    assert "g.json" in str(refused.value) and message in str(refused.value) and "\n" not in str(refused.value)


def test_impossible_volumes_are_one_line():
    with pytest.raises(UserError, match="the slice spacing is 0.0 mm: it must be positive"):
        SCAN.operator((4, 6, 6), 0.5, 0.0)
    with pytest.raises(UserError, match="geometry: ConeBeam: in view 0 a part of the volume is behind the source"):
        SCAN.operator((4, 600, 600), 0.5, 0.5)
    with pytest.raises(
        UserError, match=r"a volume of 1024x1024x1024 .* needs about 1\d.\d GiB .*, and 1.0 GiB are free"
    ):
        check_memory((1024,) * 3, (720, 1024, 1024), free=2**30)
    check_memory((64,) * 3, (60, 96, 96), free=2**30)
    assert working_memory((64,) * 3, (60, 96, 96)).forward < 2**23
