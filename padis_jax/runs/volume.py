"""A volume is its slices: a case for each, by the config of its single run, and what is the same for all.

Slice i is measured and reconstructed with the keys of `sample.py --image.index i` (or --measurement.row i), so that it
is that run's image: bit for bit where slices are done one by one, to rounding in batches.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from padis_jax.errors import UserError, quoted
from padis_jax.images import HOUNSFIELD, ImageSet, Shaping, read_images
from padis_jax.images.choice import chosen
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.load import MeasuredScan, load_scan, open_scan
from padis_jax.measurements.scaled import pixel_of
from padis_jax.problems.registry import NamedProblem
from padis_jax.runs.case import (
    Case,
    check_measured,
    checked_case,
    grey_only,
    measured_case,
    measured_problem,
    simulated_case,
    simulated_problem,
)
from padis_jax.runs.config import Experiment
from padis_jax.runs.job import Entry, Item
from padis_jax.runs.prior import check_fits
from padis_jax.runs.provenance import trained_note
from padis_jax.solvers.checks import check_numbers
from padis_jax.split import spread
from padis_jax.weights import Weights

# Settings that change no slice, or which slices are done.
FREE = ("devices", "batch", "save_as", "anonymise", "display")
ROWS = 9  # of a measured scan that the attenuation of its bright parts is estimated from, at most


class Volume(NamedTuple):
    """Slices to be reconstructed.

    Attributes:
      config: of the run; what all slices share is filled in.
      what: "image" or "row", or "slice" of a cone beam's volume, for messages.
      numbers: of the chosen slices, ascending.
      source: the images [D, H, W, C] that results are of; zeros of a measured scan.
      entries: items of the job, by their names.
      problem: of every slice.
      case: number -> its case, without the prior.
      check: number -> UserError for what `case` and the solver refuse of its values; nothing is traced.
      truth: whether `source` has the truth.
      path: of the images or measurements.
      geometry: of a measured scan.
      notes: what a user should know, each a line.
    """

    config: Experiment
    what: str
    numbers: tuple[int, ...]
    source: ImageSet
    entries: dict[str, Entry]
    problem: NamedProblem
    case: Callable[[int], Case]
    check: Callable[[int], None]
    truth: bool
    path: str
    geometry: ScanGeometry | ConeScan | None = None
    notes: tuple[str, ...] = ()

    @property
    def choice(self) -> str:
        """As the command line names it."""
        if self.what == "slice":
            return f"--volume.shape {' '.join(map(str, self.source.images.shape[:3]))}"
        flag = "--image.index" if self.truth else "--measurement.row"
        return f"{flag} {self.config.image.index if self.truth else self.config.measurement.row}"


def one_of(config: Experiment, number: int) -> Experiment:
    """The config of the single run of a slice."""
    image = dataclasses.replace(config.image, index=number)
    if not config.measurement.path:
        return dataclasses.replace(config, image=image)
    return dataclasses.replace(config, image=image, measurement=dataclasses.replace(config.measurement, row=number))


def item_name(number: int) -> str:
    """Of a slice in the job, and of its file without its suffix."""
    return f"slices/{number:05d}"


def open_volume(config: Experiment, weights: Weights) -> Volume:
    """The chosen slices of the images, or rows of the measured scan, that the config names.

    Args:
      config: of the run.
      weights: of the prior.

    Raises:
      UserError: for slices that are not there, or are not of one volume, and what no slice could be reconstructed from.
    """
    return (_measured if config.measurement.path else _simulated)(config, weights)


def _simulated(config: Experiment, weights: Weights) -> Volume:
    chosen_image = config.image
    shaping = Shaping(chosen_image.crop, chosen_image.resize, chosen_image.grey)
    images = read_images(chosen_image.path, fit=weights.window, memory=0, shaping=shaping)
    numbers = chosen("--image.index", chosen_image.index, len(images.names))
    _one_volume(config, images, numbers)
    check_fits(config, images.images.shape[1:], images.window, weights)
    shared: dict[str, Any] = {}  # the operator, of problems that draw nothing

    def case(number: int) -> Case:
        found = simulated_case(one_of(config, number), images, operator=shared.get("operator"))
        if found.problem.tomography:
            shared["operator"] = found.operator
        return found

    def read(number: int) -> Item:
        found = case(number)
        clipped = images.clipped(number)
        return Item(checked_case(found.name, found), {"slice": number, "name": found.name, "notes": clipped})

    def check(number: int) -> None:
        check_numbers(images.names[number], images.images[number])

    def digest(number: int) -> str:
        values = np.ascontiguousarray(images.images[number], "<f4")
        return hashlib.sha256(values.tobytes() + repr(images.spacing).encode()).hexdigest()

    source = images.select(numbers)
    notes = [*images.notes, trained_note(weights, config.weights, chosen_image.path, images, numbers)]
    entries = {
        item_name(i): Entry(
            images.origins[i].file.name if images.origins else "",
            functools.partial(digest, i),
            functools.partial(read, i),
            i,
        )
        for i in numbers
    }
    _, height, width, _ = images.images.shape
    problem = simulated_problem(config, (height, width), rows_up=images.rows_up)
    kept = tuple(filter(None, notes))
    return Volume(config, "image", numbers, source, entries, problem, case, check, True, chosen_image.path, notes=kept)


def _one_volume(config: Experiment, images: ImageSet, numbers: tuple[int, ...]) -> None:
    """Refuses slices that lie in several volumes, or whose files differ in spacing; files of one slice are a volume."""
    flag = f"--image.index {quoted(config.image.index)}"
    if images.mixed:
        raise UserError(f"{images.mixed}; a volume has one: name the files of one with --image.path")
    volumes = list(dict.fromkeys(images.origins[i].volume for i in numbers)) if images.origins else []
    if len(volumes) > 1 and max(images.volumes.values()) > 1:
        first = next(iter(images.volumes.values()))
        raise UserError(
            f"{flag}: reaches over {len(volumes)} volumes ({', '.join(volumes[:3])}), which make no one volume; name "
            f"one of them with --image.path, or slices of one (the first has 0:{first})"
        )


def _measured(config: Experiment, weights: Weights) -> Volume:
    grey_only(config.weights, weights)
    opened = open_scan(config.measurement)
    numbers = chosen("--measurement.row", config.measurement.row, opened.rows, "rows")
    opened = opened._replace(held=opened.held.loaded())
    shared: dict[str, Any] = {}

    @functools.lru_cache(maxsize=1)  # asked for its digest, then for its case
    def scan(number: int) -> MeasuredScan:
        try:
            return load_scan(one_of(config, number).measurement, opened)
        except UserError as error:
            raise UserError(f"row {number}: {error}") from error

    def case(number: int) -> Case:
        found = measured_case(one_of(config, number), scan(number), weights, operator=shared.get("operator"))
        shared["operator"] = found.operator
        return found

    def read(number: int) -> Item:
        found = case(number)
        about = {name: found.about[name] for name in ("repaired_counts", "attenuation_per_mm")}
        about |= {"slice": number, "name": f"row {number}", "noise_sigma": float(found.measurement.noise_sigma)}
        return Item(checked_case(f"{config.measurement.path}: row {number}", found), about)

    def check(number: int) -> None:
        check_measured(one_of(config, number), scan(number), weights)

    def digest(number: int) -> str:
        found = scan(number)
        weight = b"" if found.relative_std is None else found.relative_std.tobytes()
        return hashlib.sha256(found.sinogram.tobytes() + weight).hexdigest()

    notes = []
    if weights.window.unit != HOUNSFIELD.unit and not config.measurement.attenuation:
        config, note = _with_attenuation(config, opened.rows, case)  # of all rows, whichever are chosen
        notes.append(note)
    middle = scan(numbers[len(numbers) // 2])  # what is wrong with all of them is said at once
    notes += middle.notes
    geometry, (height, width), between = opened.geometry, weights.frame.image_shape, config.measurement.row_mm
    pixel = pixel_of(config.measurement, geometry, (height, width))
    if not between:
        between = geometry.spacing_mm / geometry.magnification
        notes.append(f"rows are taken to be {between:g} mm apart, as the bins are; --measurement.row-mm says otherwise")
    file = Path(config.measurement.path.partition("::")[0]).name
    named = f"{file} {hashlib.sha256(middle.sinogram.tobytes()).hexdigest()[:16]}"
    rows = ImageSet(
        np.zeros((opened.rows, 1, 1, 1), np.float32),
        tuple(f"{named} row {i}" for i in range(opened.rows)),
        weights.window,
        spacing=(between, pixel, pixel),
    ).select(numbers)
    blank = np.broadcast_to(np.float32(0), (len(numbers), height, width, 1))
    entries = {item_name(i): Entry(file, functools.partial(digest, i), functools.partial(read, i), i) for i in numbers}
    source, problem = dataclasses.replace(rows, images=blank), measured_problem(*middle.sinogram.shape)
    told = tuple(dict.fromkeys(notes))
    path = config.measurement.path
    return Volume(config, "row", numbers, source, entries, problem, case, check, False, path, geometry, told)


def _with_attenuation(config: Experiment, rows: int, case: Callable[[int], Case]) -> tuple[Experiment, str]:
    """(config with one attenuation for all rows, a note): the largest of a few rows."""
    found, refused = [], None
    for number in spread(rows, ROWS):
        try:
            found.append(float(case(number).about["attenuation_per_mm"][1]))
        except UserError as error:  # a row of air
            refused = error
    if not found:
        assert refused is not None
        raise refused
    measurement = dataclasses.replace(config.measurement, attenuation=max(found))
    note = f"image value 1 is {max(found):.6g} per mm in all rows; --measurement.attenuation sets it"
    return dataclasses.replace(config, measurement=measurement), note


def first_case(volume: Volume, known: Mapping[int, UserError] = MappingProxyType({})) -> Case:
    """Of the first slice that can be used: what is wrong with all of them is said before the work.

    Args:
      volume: of `open_volume`.
      known: slices that are refused, and why.

    Raises:
      UserError: if none can.
    """
    refused = dict(known)
    for number in volume.numbers:
        try:
            if number not in known:
                return volume.case(number)
        except UserError as error:
            refused[number] = error
    first = refused[volume.numbers[0]]
    raise UserError(f"{volume.path}: none of the {len(refused)} slices can be used; the first: {first}")


def refused_slices(volume: Volume) -> Iterator[tuple[int, UserError | None]]:
    """Reads every chosen slice, one at a time: (its number, why the run would refuse it, or None)."""
    for number in volume.numbers:
        try:
            volume.check(number)
        except (UserError, OSError) as error:
            yield number, error if isinstance(error, UserError) else UserError(str(error))
        else:
            yield number, None
