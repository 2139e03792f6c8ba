"""A measured scan from its files: read, turned into line integrals, and centred; `scaled` has it as solvers take it."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np

from padis_jax.errors import UserError
from padis_jax.fields import check_fields
from padis_jax.images.choice import Choice, check_choice, one_number
from padis_jax.measurements.angles import other_note, unit_note
from padis_jax.measurements.geometry import ScanGeometry, read_geometry
from padis_jax.measurements.geometry_check import check_shape, check_size, find_offset
from padis_jax.measurements.line_integrals import field_note, integrals_of
from padis_jax.measurements.sinogram_files import AXES, Held, Measured, open_sinogram

LARGEST = 1000  # whole numbers beyond it are no line integrals
_KIND = Literal["auto", "line-integrals", "counts"]


@dataclasses.dataclass(frozen=True)
class MeasurementConfig:
    """A measured scan instead of a simulated one. docs/geometry.md describes the files.

    Attributes:
      path: measured sinogram, with its geometry or --measurement.geometry. Types .npy, .npz, .mat, .h5, .tif; ::NAME
        chooses one of several; empty to simulate.
      geometry: geometry file (JSON); not needed where the sinogram's file tells it.
      row: detector row, where the file has several, or several: a volume, chosen as by --image.index (60:70, 3,5,9 or
        all). The rays of a row are taken to lie in its plane; a cone beam's are not, whose volume has --volume.shape.
      row_mm: distance of two rows at the rotation axis; 0 for that of the bins.
      axes: of the stored array, in their order; `rows` is passed over where there are two.
      kind: "line-integrals", or photon "counts", whose flat and dark fields are used, or --measurement.flat; "auto" for
        counts where the array is called so or a flat field lies beside it.
      counts: the same as kind "counts".
      flat: counts without an object, for a file without a flat field.
      dark: counts without rays, likewise.
      pixel_mm: side of a pixel; 0 fits the field of view into the image.
      attenuation: per mm: of water, where the prior's window is in HU (0: 0.02); of image value 1, where it is not
        (0: that of the bright parts of the FBP).
      noise: standard deviation of the line integrals, the same for all; 0 estimates it from neighbouring bins, with
        --weighted that of counts for each ray.
      detector_mm: distance of the detector's rows, and of its columns, for RTK's XML, which does not tell them.
      detector_origin_mm: place of its first row, and of its first column, likewise; without it (0, 0) is the middle.
      find_centre: find the rotation axis from the data, instead of the geometry's offset.
      check: check the geometry, print what may be wrong with it, and stop.
    """

    path: str = ""
    geometry: str = ""
    row: Choice = 0
    row_mm: float = 0.0
    axes: str = ",".join(AXES)
    kind: _KIND = "auto"
    counts: bool = False
    flat: float = 0.0
    dark: float = 0.0
    pixel_mm: float = 0.0
    attenuation: float = 0.0
    noise: float = 0.0
    detector_mm: tuple[float, float] | None = None
    detector_origin_mm: tuple[float, float] | None = None
    find_centre: bool = False
    check: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "measurement.")
        check_choice("--measurement.row", self.row)
        numbers = ("row", "row_mm", "flat", "dark", "pixel_mm", "attenuation", "noise")
        for name in numbers[isinstance(self.row, str) :]:
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"measurement.{name} is {getattr(self, name)}: it must not be negative")
        if sorted(self.axes.replace(" ", "").split(",")) not in (["bins", "views"], sorted(AXES)):
            raise UserError(
                f"measurement.axes is {self.axes[:40]!r}: name views, rows and bins, once each, in their order"
            )
        if self.kind not in get_args(_KIND) or (self.counts and self.kind == "line-integrals"):
            raise UserError(f"measurement.kind is {self.kind!r}: use auto, line-integrals or counts, without .counts")
        if isinstance(self.row, str) and (self.check or self.find_centre):
            raise UserError(
                f"measurement.{'check' if self.check else 'find_centre'} takes one row: name it with "
                "--measurement.row N, and write what it finds into the geometry file"
            )
        if self.check and not self.path:
            raise UserError("measurement.check needs a measurement: name it with --measurement.path")

    @property
    def number(self) -> int:
        """Of the one row that is chosen; UserError where it is a volume."""
        return one_number("--measurement.row", self.row)


class MeasuredScan(NamedTuple):
    """Line integrals [views, bins] with their geometry.

    Attributes:
      sinogram: float32, dimensionless.
      geometry: centred, if that was asked for.
      repaired: unusable counts that were filled.
      notes: how the file was understood where it could be read in several ways.
      relative_std: [views, bins], standard deviations up to a common factor; None where nothing tells them apart.
      rows: of the detector.
      centred: whether the axis was found from the data.
    """

    sinogram: np.ndarray
    geometry: ScanGeometry
    repaired: int
    notes: tuple[str, ...] = ()
    relative_std: np.ndarray | None = None
    rows: int = 1
    centred: bool = False


class OpenScan(NamedTuple):
    """A scan whose values are still in its file.

    Attributes:
      held: the file.
      geometry: as stated.
      order: axes of the stored array.
      note: how they were understood, or "".
    """

    held: Held
    geometry: ScanGeometry
    order: tuple[str, ...]
    note: str

    @property
    def rows(self) -> int:
        """Of the detector."""
        return self.held.stored.shape[self.order.index("rows")] if "rows" in self.order else 1


def open_scan(config: MeasurementConfig) -> OpenScan:
    """What the headers tell of a scan.

    Raises:
      UserError: naming the file and what is wrong with it, such as a shape that is not the geometry's.
    """
    for name in ("detector_mm", "detector_origin_mm"):
        if getattr(config, name) is not None:
            raise UserError(
                f"--measurement.{name.replace('_', '-')} goes with a cone beam's RTK geometry: leave it out"
            )
    held = open_sinogram(config.path)
    if config.geometry:
        geometry = read_geometry(config.geometry, angles=held.angles, angle_unit=held.angle_unit)
    elif held.geometry is not None:
        geometry = held.geometry
    else:
        raise UserError(f"{config.path}: it has no geometry; give a file with --measurement.geometry")
    order, note = held.order(config.axes, len(geometry.angles), geometry.bins)
    try:
        check_size(geometry, tuple(held.stored.shape[order.index(name)] for name in ("views", "bins")))
    except ValueError as error:
        raise UserError(f"{config.path}: {error}") from error
    return OpenScan(held, geometry, order, note)


def load_scan(config: MeasurementConfig, opened: OpenScan | None = None, *, plan: bool = False) -> MeasuredScan:
    """Reads the measurements of a detector row and their geometry.

    Args:
      config: the settings.
      opened: of `open_scan`, for a row of a volume, which may be air.
      plan: leaves the axis where the geometry says if finding it takes an image.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    row_of_volume = opened is not None
    opened = opened or open_scan(config)
    held, geometry = opened.held, opened.geometry
    found = held.read(opened.order, row=config.number)
    offset = None
    try:
        counts, kind_note = told_counts(config, found)
        values, repaired, relative = integrals_of(found, config.flat, config.dark, counts=counts)
        check_shape(geometry, values, air=row_of_volume)
        if config.find_centre:
            offset = find_offset(geometry, values, plan=plan)
            geometry = geometry if offset is None else dataclasses.replace(geometry, offset_mm=offset)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{config.path}: {error}") from error
    unit = unit_note(geometry.angles, geometry.angle_unit)
    others = (other_note(geometry, held.angles, held.angle_unit), field_note(found, config.flat, config.dark))
    told = "" if counts else log_note(values)
    every = (opened.note, kind_note, *others, told, unit and f"{unit} See --measurement.check")
    notes = tuple(filter(None, every))
    return MeasuredScan(values, geometry, repaired, notes, relative, opened.rows, offset is not None)


def log_note(values: np.ndarray) -> str:
    """A note where line integrals [views, bins] look as if the logarithm were missing or turned round, or "".

    Beside the object they are nearly 0, where transmission and counts are largest.
    """
    views, bins = values.shape
    if float(values.mean()) < 0:
        return "the line integrals are negative on average: is the sign of the logarithm right? They are -ln(I / I0)"
    side = max(1, bins // 20)
    edges = float(np.mean(values[:, np.r_[:side, bins - side : bins]]))
    if bins >= 8 and edges > 1.05 * float(np.mean(values[:, bins // 4 : bins - bins // 4])):
        return (
            "the values are larger at the edges of the detector than in its middle, as transmission and counts are: "
            "line integrals are -ln(I / I0), and counts want --measurement.kind counts and --measurement.flat"
        )
    return ""


def told_counts(config: MeasurementConfig, found: Measured) -> tuple[bool, str]:
    """(whether the values are counts, a note or "").

    Args:
      config: the settings.
      found: a row of the detector.

    Raises:
      UserError: where `auto` cannot tell.
    """
    if config.kind != "auto" or config.counts:
        return config.counts or config.kind == "counts", ""
    if found.name.rpartition("/")[2].lower() == "counts":
        return True, ""
    values = found.sinogram[np.isfinite(found.sinogram)]
    largest = float(values.max(initial=0.0))
    whole = values.dtype.kind in "iub" or bool((values == np.rint(values)).all())
    remedy = "give --measurement.kind counts or --measurement.kind line-integrals"
    if found.flat is not None or config.flat:
        if not whole and largest < 1e-3 * np.median(config.flat if found.flat is None else found.flat):
            raise UserError(
                f"{config.path}: {found.name} has a flat field beside it, but no value beyond {largest:g}; {remedy}"
            )
        return True, f"{found.name} is taken for counts, since there is a flat field: see --measurement.kind"
    if whole and largest > LARGEST:
        raise UserError(
            f"{config.path}: {found.name} holds whole numbers up to {largest:g}, which look like counts, and no flat "
            f"field; {remedy} (counts with --measurement.flat)"
        )
    return False, ""
