"""A measured cone-beam scan as sample.py is given it.

A geometry file is one of a cone beam if it is our JSON with `"beam": "cone"`, ASTRA's dictionary of a cone, or RTK's
XML, which leaves out how far the detector's pixels are apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import read_text
from padis_jax.measurements.cone_geometry import ConeScan, says_cone
from padis_jax.measurements.load import MeasurementConfig, told_counts
from padis_jax.measurements.rtk_geometry import LARGEST, read_rtk
from padis_jax.measurements.sinogram_files import Held, open_sinogram
from padis_jax.measurements.volume_scan import VolumeScan, read_scan_geometry, read_volume
from padis_jax.serialization import parse_json


def is_cone(path: str) -> bool:
    """Whether a geometry file is one of a cone beam; not for a file that cannot be read, which its reader refuses."""
    try:
        text = read_text(path, LARGEST).lstrip()
        if text.startswith("<"):
            return True
        return says_cone(parse_json(text, path))
    except (OSError, ValueError):
        return False


class OpenVolume(NamedTuple):
    """A scan whose values are still in its file: the file, and the geometry as stated."""

    held: Held
    geometry: ConeScan


def open_measured_volume(config: MeasurementConfig) -> OpenVolume:
    """What the headers of the scan tell that the settings name.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    held = open_sinogram(config.path)
    return OpenVolume(held, _geometry(config, held))


def read_measured_volume(config: MeasurementConfig, opened: OpenVolume, *, relative: bool = False) -> VolumeScan:
    """All detector rows of a scan.

    Args:
      config: the settings.
      opened: of `open_measured_volume`.
      relative: whether to keep what counts tell of the noise of each ray.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    return read_volume(
        opened.held,
        config.path,
        opened.geometry,
        axes=config.axes,
        tell=lambda row: told_counts(config, row),
        flat=config.flat,
        dark=config.dark,
        relative=relative,
    )


def _geometry(config: MeasurementConfig, held: Held) -> ConeScan:
    if is_cone(config.geometry) and read_text(config.geometry).lstrip().startswith("<"):
        return _rtk(config, held)
    for name in ("detector_mm", "detector_origin_mm"):
        if getattr(config, name):
            flag = f"--measurement.{name.replace('_', '-')}"
            raise UserError(f"{flag}: {config.geometry} says itself where the detector's pixels lie; leave it out")
    found = read_scan_geometry(config.geometry, angles=held.angles, angle_unit=held.angle_unit)
    assert isinstance(found, ConeScan)  # `is_cone` of the caller
    return found


def _rtk(config: MeasurementConfig, held: Held) -> ConeScan:
    """The scan of an RTK file, for projections whose header is not at hand."""
    if config.detector_mm is None or not min(config.detector_mm) > 0:
        raise UserError(
            f"{config.geometry}: RTK's geometry does not tell how far the detector's pixels are apart: give "
            "--measurement.detector-mm ROWS COLUMNS, the distance of its rows and of its columns"
        )
    order, shape = held.order(config.axes)[0], held.stored.shape
    if len(shape) != 3:
        raise UserError(f"{config.path}: {held.name} {shape} has no axis of detector rows, which a volume needs")
    rows, columns = shape[order.index("rows")], shape[order.index("bins")]
    scan = read_rtk(
        config.geometry,
        detector_shape=(rows, columns),
        spacing_mm=config.detector_mm,
        origin_mm=config.detector_origin_mm,
    )
    views, found = len(scan.vectors_mm), shape[order.index("views")]
    if found != views:
        fits = np.flatnonzero(np.equal(shape, views))
        remedy = f"; its axis {fits[0]} has so many: name the order with --measurement.axes" if len(fits) else ""
        raise UserError(
            f"{config.path}: {held.name} {shape} read as {','.join(order)} has {found} views of {rows} x {columns}, "
            f"but {config.geometry} has {views} projections{remedy}"
        )
    return scan
