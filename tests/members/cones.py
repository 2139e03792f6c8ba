"""Geometries of cone beams: one in all its forms, and JSON, ASTRA's dictionaries and RTK's XML changed at random."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from members import EITHER, REFUSED, Member, written
from members.metadata import text_of
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.rtk_geometry import read_rtk
from padis_jax.measurements.volume_scan import read_scan_geometry

KIND, RTK = "cone geometry", "RTK geometry"
SCAN = ConeScan("cone", 6, 10, (0.0, 90.0, 180.0, 270.0), "degrees", 0.7, 0.5, 0.0, 0.0, 40.0, 20.0)
ASTRA = {"DetectorRowCount": 6, "DetectorColCount": 10}
ORBIT = {"DetectorSpacingX": 0.5, "DetectorSpacingY": 0.7, "ProjectionAngles": np.radians(SCAN.angles).tolist(),
         "DistanceOriginSource": 40, "DistanceOriginDetector": 20.0}  # fmt: skip
FORMS: tuple[dict[str, Any], ...] = (
    {"beam": "cone", "rows": 6, "columns": 10, "angles": [0, 90, 180, 270], "row_spacing_mm": 0.7,
     "column_spacing_mm": 0.5, "source_distance_mm": 40, "detector_distance_mm": 20},
    {"beam": "cone", "rows": 6, "columns": 10, "angles": ORBIT["ProjectionAngles"], "angle_unit": "radians",
     "row_spacing_mm": 0.7, "column_spacing_mm": 0.5, "source_distance_mm": 40.0, "detector_distance_mm": 20.0},
    {"beam": "cone", "rows": 6, "columns": 10, "vectors_mm": SCAN.placed.tolist()},
    {"type": "cone", **ASTRA, **ORBIT},
    {"type": "cone_vec", **ASTRA, "Vectors": SCAN.placed.tolist()},
)  # fmt: skip


def _projection(angle: float) -> str:
    t = math.radians(angle)
    rows = ((-60 * math.cos(t), 0, 60 * math.sin(t), 0), (0, -60, 0, 0), (math.sin(t), 0, math.cos(t), -40))
    numbers = "\n".join(" ".join(f"{number:.17g}" for number in row) for row in rows)
    return f"<Projection><GantryAngle>{angle:g}</GantryAngle><Matrix>\n{numbers}\n</Matrix></Projection>\n"


ROOT = "RTKThreeDCircularGeometry"
XML = (
    f'<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<{ROOT} version="3">\n<SourceToDetectorDistance>60'
    f"</SourceToDetectorDistance>\n{''.join(map(_projection, SCAN.angles))}</{ROOT}>\n"
)
_NUMBERS = ("nan", "inf", "-inf", "1e400", "0", "-0", "1e-320", "1e300", "9" * 400, "", "x", "0x10", "1,5", "१", "1_0",
            "&lt;", "--1", "1e", "[1]", "None", "\0")  # fmt: skip
_LAUGHS = "".join(f'<!ENTITY {b} "{f"&{a};" * 9}">' for a, b in itertools.pairwise("abcdefghi"))
_BAD = {
    "entities": XML.replace("RTKGEOMETRY>", f'RTKGEOMETRY [<!ENTITY a "1">{_LAUGHS}]>').replace(">60<", ">&i;<"),
    "an entity that is not used": XML.replace("RTKGEOMETRY>", 'RTKGEOMETRY [<!ENTITY a "1">]>'),
    "an entity of parameters": XML.replace("RTKGEOMETRY>", 'RTKGEOMETRY [<!ENTITY % a SYSTEM "/etc/passwd"> %a;]>'),
    "an entity of a file": XML.replace("RTKGEOMETRY>", 'RTKGEOMETRY [<!ENTITY a SYSTEM "/etc/passwd">]>'),
    "a document type elsewhere": XML.replace("RTKGEOMETRY>", 'RTKGEOMETRY SYSTEM "http://127.0.0.1:1/x.dtd">'),
    "an unknown entity": XML.replace(">60<", ">&a;<"),
    "nested": f"<{ROOT}>" + "<Projection>" * 100_000,
    "nested projections": XML.replace("<Projection>", "<Projection><Projection>", 1),
    "a matrix in a matrix": XML.replace("<Matrix>", "<Matrix><Matrix>").replace("</Matrix>", "</Matrix></Matrix>"),
    "many projections": f"<{ROOT}>" + "<Projection/>" * 200_000 + f"</{ROOT}>",
    "many attributes": XML.replace("version", " ".join(f'a{i}="1"' for i in range(100_000)) + " version"),
    "a long number": XML.replace(">60<", f">{'6' * 1_000_000}<"),
    "many numbers": XML.replace("<Matrix>", "<Matrix>" + "1 " * 1_000_000, 1),
    "two roots": XML + f"<{ROOT}/>",
    "another root": XML.replace(ROOT, "RTKOtherGeometry"),
    "a space of names": XML.replace(ROOT, f"a:{ROOT}"),
    "no distance": XML.replace("SourceToDetectorDistance", "Other"),
    "a distance in one projection alone": XML.replace("<GantryAngle>0<", "<SourceToDetectorDistance>0 1<"),
    "nothing": "", "JSON": json.dumps(FORMS[0]), "a byte order mark alone": "\ufeff", "zeros": "\0" * 1000,
}  # fmt: skip
_GOOD = {
    "as it is": XML,
    "a long name": XML.replace("GantryAngle", "G" * 1_000_000),
    "an encoding that it has not": XML.replace('version="1.0"', 'version="1.0" encoding="utf-16"', 1),
    "an unknown encoding": XML.replace('version="1.0"', 'version="1.0" encoding="x-none"', 1),
    "a comment": XML.replace("<Projection>", "<!-- <Matrix>1</Matrix> --><Projection>", 1),
    "CDATA": XML.replace(">60<", "><![CDATA[60]]><"),
    "a processing instruction": XML.replace("<Projection>", "<?run rm?><Projection>", 1),
    "further elements": XML.replace("<GantryAngle>", "<OutOfPlaneAngle>x</OutOfPlaneAngle><GantryAngle>"),
    "a declared encoding": XML.replace('version="1.0"', 'version="1.0" encoding="UTF-8"', 1),
    "other white space": XML.replace(" ", "\t").replace("<!DOCTYPE\t", "<!DOCTYPE ").replace("\tversion", " version")
    .replace("<?xml\t", "<?xml "),
}  # fmt: skip


def _rtk(path: Path) -> np.ndarray:
    return _kept(read_rtk(path, detector_shape=(6, 10), spacing_mm=(0.7, 0.5)))


def _kept(found: ConeScan | ScanGeometry) -> np.ndarray:
    """The numbers of a geometry that keeps its promises: finite, and an operator or a refusal follows."""
    if isinstance(found, ScanGeometry):
        assert math.isfinite(found.field_mm)
        return found.radians
    placed = found.placed
    assert np.isfinite(placed).all() and placed.shape == (found.measurement_shape[0], 12)
    if np.prod(found.measurement_shape, dtype=float) < 1e5:
        with np.errstate(all="raise", under="ignore"):
            assert math.isfinite(found.field_mm) if found.fan is not None else True
            made = jax.eval_shape(lambda: found.operator((2, 4, 4), 1.0, 1.0).norm)
            found.note((2, 4, 4), 1.0, 1.0)
        assert made.shape == ()
    return placed


def _read(path: Path) -> np.ndarray:
    return _kept(read_scan_geometry(path))


def forms() -> Iterator[Member]:
    """One geometry as ours and as ASTRA's."""
    for index, form in enumerate(FORMS):
        for indent in (None, 1):
            text = json.dumps(form, indent=indent).encode()
            yield Member(KIND, f"form {index}, {indent}", written(text, "g.json"), _read, SCAN.placed)


def geometries(seed: int, count: int) -> Iterator[Member]:
    """JSON of cone beams, one to three changes in each."""
    for case in range(count):
        text = text_of(np.random.default_rng([seed, 4, case]), FORMS[case % len(FORMS)])
        yield Member(KIND, f"geometry {case}", written(text, "g.json"), _read, EITHER)


def rtk(seed: int, count: int) -> Iterator[Member]:
    """RTK's XML: right, hostile, with other numbers and elements, cut off."""
    for name, xml in _GOOD.items():
        yield Member(RTK, name, written(xml.encode(), "g.xml"), _rtk, SCAN.placed)
    for name, xml in _BAD.items():
        yield Member(RTK, name, written(xml.encode("utf-8", "surrogatepass"), "g.xml"), _rtk, REFUSED)
    for case in range(count):
        rng = np.random.default_rng([seed, 5, case])
        yield Member(RTK, f"changed {case}", written(_changed(rng).encode("utf-8", "replace"), "g.xml"), _rtk, EITHER)


def _changed(rng: np.random.Generator) -> str:
    """The XML with another number, without an element, with one twice, with a tag of another name, or cut off."""
    kind = rng.integers(5)
    if kind == 0:
        places = list(re.finditer(r"(?<=[>\s])-?\d[\d.e+-]*(?=[<\s])", XML))
        at = places[rng.integers(len(places))]
        return XML[: at.start()] + _NUMBERS[rng.integers(len(_NUMBERS))] + XML[at.end() :]
    if kind == 1:
        return XML[: rng.integers(len(XML))]
    places = list(re.finditer(r"<(\w+)[^>]*>[^<]*</\1>|<Projection>.*?</Projection>", XML, re.DOTALL))
    at = places[rng.integers(len(places))]
    if kind == 2:
        return XML[: at.start()] + XML[at.start() : at.end()] * int(rng.choice([0, 2])) + XML[at.end() :]
    tag = list(re.finditer(r"</?(\w+)", XML))[1 + rng.integers(12)]
    name = ("", "a b", "x" * 5000, "Matrix", "Projection", "\u0301", ROOT, "1")[rng.integers(8)]
    if kind == 3:
        return XML[: tag.start(1)] + name + XML[tag.end(1) :]
    return XML.replace(f"<{tag[1]}>", f"<{name}>").replace(f"</{tag[1]}>", f"</{name}>")
