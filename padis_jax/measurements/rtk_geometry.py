"""The geometry of a cone-beam scan from an RTK file (ThreeDCircularProjectionGeometry, XML).

RTK turns about its y axis; its (x, y, z) are our (x, z, -y). Of every view the file has the matrix M = [A b] from a
place X in mm to (u w, v w, w), w being minus the depth before the source S = -A^-1 b, so that the detector, at the
distance D, is P(u, v) = S - D A^-1 (u, v, 1). Where pixels lie on the detector stands in the projections' own file.

The parser expands no entities: a file that declares some, or refers to other files, is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from padis_jax.errors import UserError, cut
from padis_jax.files import read_text
from padis_jax.measurements.cone_geometry import ConeScan

LARGEST, DEEPEST, MOST = 2**26, 8, 2**17  # bytes, nesting, and views
_ROOT = "RTKThreeDCircularGeometry"
_NUMBERS = ("SourceToDetectorDistance", "RadiusCylindricalDetector", "Matrix")
Values = dict[str, list[float]]


def read_rtk(
    path: str | Path,
    *,
    detector_shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    origin_mm: tuple[float, float] | None = None,
) -> ConeScan:
    """Reads an RTK geometry.

    Args:
      path: of the XML.
      detector_shape: (rows, columns) of the projections.
      spacing_mm: of their (rows, columns).
      origin_mm: (v, u) of the first pixel, the origin in the projections' header; None where the middle is (0, 0).

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    try:
        common, views = _parsed(read_text(path, LARGEST))
    except OSError as error:
        raise UserError(f"{path}: the geometry cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except (expat.ExpatError, ValueError) as error:
        raise UserError(f"{path}: no RTK geometry: {cut(error)}") from error
    if not views:
        raise UserError(f"{path}: the RTK geometry has no projections")
    rows, columns = detector_shape
    if origin_mm is None:
        origin_mm = (-(rows - 1) / 2 * spacing_mm[0], -(columns - 1) / 2 * spacing_mm[1])
    middle = [o + (n - 1) / 2 * s for o, n, s in zip(origin_mm, detector_shape, spacing_mm, strict=True)]
    placed = []
    for number, own in enumerate(views):
        try:
            placed.append(_vectors({**common, **own}, spacing_mm, (middle[0], middle[1])))
        except ValueError as error:
            raise UserError(f"{path}: projection {number}: {cut(error)}") from error
    try:
        return ConeScan("cone", rows, columns, vectors_mm=tuple(placed))
    except ValueError as error:
        raise UserError(f"{path}: {cut(error)}") from error


def _parsed(text: str) -> tuple[Values, list[Values]]:
    """Numbers that all views share, and those of each view."""
    parser = expat.ParserCreate()
    stack: list[str] = []
    said: list[str] = []
    common: Values = {}
    views: list[Values] = []

    def refuse(what: str) -> Any:
        raise ValueError(f"it {what}, which an RTK geometry never does; refused")

    def start(name: str, _: dict[str, str]) -> None:
        stack.append(name)
        said.clear()
        if stack[0] != _ROOT:
            raise ValueError(f"its root is <{cut(stack[0], 40)}>, expected <{_ROOT}>")
        if len(stack) > DEEPEST or len(views) > MOST:
            refuse(f"nests more than {DEEPEST} elements or has more than {MOST} views")
        if name == "Projection":
            views.append({})

    def end(name: str) -> None:
        if name in _NUMBERS:
            numbers = [float(number) for number in "".join(said).split()]
            (views[-1] if "Projection" in stack else common)[name] = numbers
        stack.pop()
        said.clear()

    def doctype(name: str, system: str | None, public: str | None, internal: int) -> Any:
        if system or public or internal:
            refuse("declares a document type of its own")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = said.append
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = lambda *_: refuse("declares entities")
    parser.ExternalEntityRefHandler = lambda *_: refuse("refers to other files")
    parser.Parse(text, True)
    return common, views


def _vectors(values: Values, spacing: tuple[float, float], middle: tuple[float, float]) -> tuple[float, ...]:
    """Source, detector centre, step between columns, step between rows, in our axes."""
    if any(values.get("RadiusCylindricalDetector", [])):
        raise ValueError("a cylindrical detector is not supported")
    distance, matrix = values.get("SourceToDetectorDistance", []), np.asarray(values.get("Matrix", []))
    if len(distance) != 1 or not 0 < distance[0] < math.inf:
        raise ValueError("SourceToDetectorDistance is missing or not positive (parallel beams are not supported)")
    if matrix.size != 12 or not np.isfinite(matrix).all():
        raise ValueError(f"its Matrix has {matrix.size} numbers, expected 12 finite ones")
    matrix = matrix.reshape(3, 4)
    if not abs(np.linalg.det(matrix[:, :3])) > 1e-9 * np.linalg.norm(matrix[0, :3]) * np.linalg.norm(matrix[1, :3]):
        raise ValueError("its Matrix has no inverse")
    inverse = np.linalg.inv(matrix[:, :3] / np.linalg.norm(matrix[2, :3]))
    source = -inverse @ (matrix[:, 3] / np.linalg.norm(matrix[2, :3]))
    steps = -distance[0] * inverse
    centre = source + steps @ np.asarray([middle[1], middle[0], 1.0])
    vectors = np.stack([source, centre, steps[:, 0] * spacing[1], steps[:, 1] * spacing[0]])
    return tuple((vectors[:, [0, 2, 1]] * np.asarray([1, -1, 1])).ravel().tolist())
