"""Measured sinograms from files, with what is stored beside them.

Arrays go by their names, groups and MATLAB structures by paths such as tb_75_165/sinogram. Read are

    sinogram, counts, data ...      of two or three axes: views, bins and, where there are several, detector rows
    flat, dark                      counts without an object, and without rays
    angles_degrees, angles_radians  [views], optional; or theta, in degrees in a Data Exchange file
    parameters                      optional: HelTomo's structure, as in the Helsinki Tomography Challenge's .mat files
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.guard import decoding
from padis_jax.measurements.angles import ANGLES
from padis_jax.measurements.containers import SUFFIXES, Stored, held_array, open_arrays
from padis_jax.measurements.geometry import ScanGeometry

__all__ = ["AXES", "SUFFIXES", "Held", "Measured", "open_sinogram"]

AXES = ("views", "rows", "bins")
_SINOGRAMS = ("sinogram", "counts", "projections", "proj", "data")
_FLAT = ("flat", "flat_field", "flats", "data_white")
_DARK = ("dark", "dark_field", "darks", "data_dark")
# Names in HelTomo's `parameters`: what they are to us. The detector may have been binned after the scan ("Post").
_HELTOMO = {
    "source_distance_mm": ("distanceSourceOrigin",),
    "source_to_detector": ("distanceSourceDetector",),
    "spacing_mm": ("pixelSizePost", "pixelSize"),
    "bins": ("numDetectorsPost", "numDetectors"),
}


class Measured(NamedTuple):
    """What a file of measurements holds.

    Attributes:
      sinogram: [views, bins], as stored.
      name: of that array.
      flat: counts without an object, [bins] or [n, bins], or None.
      dark: counts without rays, or None.
      angles: [views], or None.
      angle_unit: of `angles`; "" where the file does not tell.
      geometry: where the file tells all of it.
    """

    sinogram: np.ndarray
    name: str
    flat: np.ndarray | None = None
    dark: np.ndarray | None = None
    angles: tuple[float, ...] | None = None
    angle_unit: str = "degrees"
    geometry: ScanGeometry | None = None


class Held(NamedTuple):
    """A sinogram that is still in its file; `beside` is what lies in the same group, the rest as in `Measured`."""

    file: Path
    name: str
    stored: Stored
    beside: Mapping[str, Stored]
    angles: tuple[float, ...] | None
    angle_unit: str
    geometry: ScanGeometry | None

    def order(self, axes: str, views: int | None = None, bins: int | None = None) -> tuple[tuple[str, ...], str]:
        """(axes of the stored array, a note or "").

        Args:
          axes: names in their order; `rows` is passed over where the array has two axes.
          views: of the geometry, or None.
          bins: likewise.

        Raises:
          UserError: if only another order fits to the geometry, or the names are not enough.
        """
        shape = self.stored.shape
        names = tuple(name for name in axes.replace(" ", "").split(",") if len(shape) == 3 or name != "rows")
        if len(names) != len(shape):
            raise UserError(
                f"{self.file}: {self.name} {shape} has {len(shape)} axes, but --measurement.axes {axes} names "
                f"{len(names)}; name all"
            )
        if views is None or bins is None:
            return names, ""

        def read_as(order: tuple[str, ...]) -> tuple[int, int]:
            return shape[order.index("views")], shape[order.index("bins")]

        fits = [o for o in itertools.permutations(sorted(names, key=AXES.index)) if read_as(o) == (views, bins)]
        if fits and names not in fits:
            found = read_as(names)
            raise UserError(
                f"{self.file}: {self.name} {shape} read as {','.join(names)} has {found[0]} views of {found[1]} bins, "
                f"but the geometry has {views} of {bins}; read as {','.join(fits[0])} it fits: give --measurement.axes "
                f"{','.join(fits[0])}"
            )
        others = " or ".join(",".join(order) for order in fits if order != names)
        note = f"{self.name} {shape} was read as {','.join(names)}; {others} would fit too: see --measurement.axes"
        return names, note if others else ""

    def read(self, order: tuple[str, ...], *, row: int = 0) -> Measured:
        """The values of a detector row.

        Raises:
          UserError: if there is no such row, or the values cannot be read.
        """
        rows = self.stored.shape[order.index("rows")] if "rows" in order else 1
        if not 0 <= row < rows:
            raise UserError(
                f"{self.file}: {self.name} {self.stored.shape} has {rows} detector rows; there is no row {row}"
            )
        with decoding(self.file, "measurement file"):
            sinogram = _plane(self.stored, order, row)
            flat, dark = (self._field(names, order, row) for names in (_FLAT, _DARK))
        return Measured(sinogram, self.name, flat, dark, self.angles, self.angle_unit, self.geometry)

    def loaded(self) -> Held:
        """With the sinogram in memory, if it fits, where its file must be unpacked whole for a part of it."""
        if self.stored.partial:
            return self
        try:
            with decoding(self.file, "measurement file"):
                return self._replace(stored=held_array(self.stored.read(())))
        except UserError:  # beyond the limit of memory; a damaged file is refused when a row is read
            return self

    def _field(self, names: tuple[str, ...], order: tuple[str, ...], row: int) -> np.ndarray | None:
        """A flat or dark field, laid out as the sinogram is, or without its views."""
        stored = _found(self.beside, names)[1]
        if stored is None:
            return None
        if len(stored.shape) == 3 and "rows" in order:
            rows, all_rows = (shape[order.index("rows")] for shape in (stored.shape, self.stored.shape))
            if rows not in (1, all_rows):
                raise UserError(
                    f"{self.file}: {names[0]} {stored.shape} read as {','.join(order)} has {rows} detector rows, but "
                    f"{self.name} has {all_rows}: store it in the order of {self.name}"
                )
            return _plane(stored, order, 0 if rows == 1 else row)
        without = tuple(name for name in order if name != "views")
        size = tuple(self.stored.shape[order.index(name)] for name in without)
        if len(stored.shape) == 2 and "rows" in order and stored.shape == size:
            return stored.read(tuple(row if name == "rows" else slice(None) for name in without))
        field = np.squeeze(stored.read(()))
        return field.T if field.ndim == 2 and order.index("bins") < order.index("views") else field


def open_sinogram(path: str | Path) -> Held:
    """Finds the sinogram of a file by its headers, and reads what is said of its geometry.

    Args:
      path: the file, with `::NAME` for one of several arrays or groups. A TIFF of one page is [views, bins]; one of
        several pages has a view on each, [rows, bins].

    Raises:
      UserError: naming the file, what is wrong with it, and the remedy.
    """
    name, _, wanted = str(path).partition("::")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    arrays = open_arrays(file)
    usable = {n: a for n, a in arrays.items() if not a.trouble}
    listed = ", ".join(f"{n} {a.shape}" for n, a in list(usable.items())[:8]) or "nothing"
    planes = {n: a for n, a in usable.items() if len(a.shape) in (2, 3) and sum(size > 1 for size in a.shape) > 1}
    if wanted:
        within = f"{wanted}/"
        named = [n for n in planes if n == wanted or (n.startswith(within) and n[len(within) :].lower() in _SINOGRAMS)]
    else:
        named = [n for n in planes if n.rpartition("/")[2].lower() in _SINOGRAMS]
        named = named or [n for n in planes if n.rpartition("/")[2].lower() not in (*_FLAT, *_DARK, *ANGLES)]
        named = [n for n in named if f"/{n}".endswith("/exchange/data")] or named  # Data Exchange: others describe it
    if not named:
        _check(file, {n: a for n, a in arrays.items() if n == wanted or n.rpartition("/")[2].lower() in _SINOGRAMS})
    if len(named) != 1:
        which = f"no array or group {wanted!r}" if wanted else "several arrays" if named else "no array [views, bins]"
        hint = f"; name one: {file}::{named[0]}" if named else ""
        raise UserError(f"{file}: holds {listed}: {which} that could be the sinogram{hint}")
    group = named[0].rpartition("/")[0]
    prefix = f"{group}/" if group else ""
    near = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    _check(file, {f"{prefix}{n}": a for n, a in near.items() if n.lower() in (*_FLAT, *_DARK, *ANGLES)})
    beside = {n: a for n, a in near.items() if not a.trouble}
    with decoding(file, "measurement file"):
        angles, unit = _angles(beside, exchange=group.rpartition("/")[2] == "exchange")
        parameters = {
            n.rpartition("/")[2]: a.read(())
            for n, a in beside.items()
            if n.startswith("parameters/") and n.rpartition("/")[2] in {"angles", *itertools.chain(*_HELTOMO.values())}
        }
    try:
        geometry = _heltomo(parameters, angles, unit or "degrees")
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: the parameters next to {named[0]}: {error}") from error
    if geometry is not None:
        angles, unit = geometry.angles, geometry.angle_unit
    return Held(file, named[0], planes[named[0]], beside, angles, unit, geometry)


def _check(file: Path, arrays: Mapping[str, Stored]) -> None:
    """Refuses the first of the arrays that are no real numbers, which a reader would miss."""
    for name, array in arrays.items():
        if array.trouble:
            raise UserError(f"{file}: {name} {array.trouble}: store it as real numbers, or take it out of the file")


def _plane(stored: Stored, order: tuple[str, ...], row: int) -> np.ndarray:
    """[views, bins] of a detector row."""
    values = stored.read(tuple(row if name == "rows" else slice(None) for name in order))
    return values.T if order.index("bins") < order.index("views") else values


def _angles(beside: Mapping[str, Stored], *, exchange: bool) -> tuple[tuple[float, ...] | None, str]:
    """(angles, unit or "") by the first of the known names, None without."""
    name, stored = _found(beside, ANGLES)
    if stored is None:
        return None, ""
    told = stored.unit.lower()
    unit = ANGLES[name] or ("degrees" if told.startswith("deg") else "radians" if told.startswith("rad") else "")
    unit = unit or ("degrees" if exchange else "")
    return tuple(float(angle) for angle in np.ravel(stored.read(()))), unit


def _found(beside: Mapping[str, Stored], names: Iterable[str]) -> tuple[str, Stored | None]:
    """(name, array) of the first of the names that is there, in capitals or not, as the sinogram's own."""
    return next(((name, beside[n]) for name in names for n in beside if n.lower() == name), ("", None))


def _heltomo(values: Mapping[str, np.ndarray], angles: tuple[float, ...] | None, unit: str) -> ScanGeometry | None:
    """The geometry that HelTomo's `parameters` tell, whose own angles are in degrees; None where they do not."""
    about: dict[str, float] = {}
    for ours, theirs in _HELTOMO.items():
        name = next((n for n in theirs if n in values and np.size(values[n]) == 1), None)
        if name is None:
            return None
        about[ours] = float(np.ravel(values[name])[0])
    if angles is None and "angles" in values:
        angles, unit = tuple(float(a) for a in np.ravel(values["angles"])), "degrees"
    if angles is None:
        return None
    detector = about.pop("source_to_detector") - about["source_distance_mm"]
    bins = int(about.pop("bins"))
    told: Literal["degrees", "radians"] = "radians" if unit == "radians" else "degrees"
    return ScanGeometry("fan", angles, told, bins, detector_distance_mm=detector, **about)
