"""A volume that is solved as a whole: one case, of a cone-beam scan or of slices whose measurements lie side by side.

A cone-beam scan is measured, or simulated from the volume that --image.index chooses. Slices, and rows of a measured
scan, are those of `volume.py`: slice i is measured with the key of its single run here, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.scaled import lines_values, scaled_lines
from padis_jax.measurements.simulate import Measurement, paper_measurement
from padis_jax.measurements.simulate_cone import cone_measurement
from padis_jax.measurements.volume_load import is_cone, open_measured_volume, read_measured_volume
from padis_jax.measurements.volume_scan import read_scan_geometry
from padis_jax.operators.cone import ConeTransform
from padis_jax.operators.slices import of_slices
from padis_jax.problems.registry import NamedProblem, parallel_scan
from padis_jax.runs.case import image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.grid import check_spacing, grid_of
from padis_jax.runs.job import Entry, Item
from padis_jax.runs.volume import Volume, one_of, open_volume
from padis_jax.runs.volume_case import VolumeCase
from padis_jax.solvers.checks import check_numbers
from padis_jax.solvers.volumes import TIED
from padis_jax.weights import Weights

WHOLE = "volume"  # the one entry of a volume that is opened, of which the rows of the job are made


def is_whole(config: Experiment) -> bool:
    """Whether the config names a volume that is solved as a whole.

    Raises:
      UserError: for settings of such a volume where there is none.
    """
    if config.measurement.path and is_cone(config.measurement.geometry):
        return True
    if config.scan.geometry or (config.volume.joint and config.several):
        return True
    if given := config.volume.given:
        why = "a cone beam's --measurement.geometry, or --volume.joint"
        if config.volume.joint:
            given, why = "--volume.joint", "several slices, chosen by --image.index, or rows, by --measurement.row"
        elif (file := config.measurement.geometry) and config.measurement.path:
            raise UserError(
                f"{given} is of a volume that is solved as a whole, and {file} "
                + ("is no cone beam's geometry" if Path(file).is_file() else "is not there")
            )
        raise UserError(f"{given} is of a volume that is solved as a whole: give {why}")
    return False


def open_whole(config: Experiment, weights: Weights) -> Volume:
    """The volume that the config names. `Volume.case` builds its case, of whatever number.

    Args:
      config: of the run.
      weights: of the prior, of images or of slabs.

    Raises:
      UserError: for settings that do not go with it, and files that do not fit.
    """
    cone = bool(config.measurement.path) and is_cone(config.measurement.geometry)
    _check(config, cone)
    plane = weights._replace(network=dataclasses.replace(weights.network, image_channels=1), slab=None)
    if cone:
        return _measured_cone(config, plane)
    return _simulated_cone(config, plane) if config.scan.geometry else _side_by_side(config, plane)


def rows_of_job(volume: Volume, labels: Sequence[str]) -> dict[str, Entry]:
    """The items of the job, one for each of its steps (`solve_rows.steps_of`), in order."""
    whole = volume.entries[WHOLE]
    names = ["".join(c if c.isalnum() else "_" for c in label.lower()) for label in labels]
    return {f"rows/{name}": whole._replace(number=at) for at, name in enumerate(names)}


def _check(config: Experiment, cone: bool) -> None:
    """Refuses what volumes as a whole do not have."""
    flags = {
        "--tiling": config.tiling != "random",
        "--tilings": config.tilings > 1,
    }
    if refused := [flag for flag, given in flags.items() if given]:
        raise UserError(f"{refused[0]}: not for a volume that is solved as a whole (docs/volumes.md); leave it out")
    if config.volume.along_tv and config.method not in TIED:
        raise UserError(f"--volume.along-tv: --solver {config.method} knows none; use one of {', '.join(TIED)}")
    measured = config.measurement
    if cone:
        unused = {
            "--measurement.row": (measured.row != 0, "a cone beam's rows are no slices, and all are used"),
            "--measurement.row-mm": (bool(measured.row_mm), "slices have a distance of their own, --volume.slice-mm"),
            "--measurement.find-centre": (measured.find_centre, "of parallel and fan beams only"),
        }
    else:
        own = "the slices that are chosen have their own"
        unused = {
            "--volume.shape": (config.volume.shape is not None, own),
            "--volume.slice-mm": (bool(config.volume.slice_mm and measured.path), f"{own}; see --measurement.row-mm"),
        }
        if config.scan.geometry and not config.several:
            raise UserError(
                "--scan.geometry: a cone beam's scan is of a volume: choose slices by --image.index, or all"
            )
    for flag, (given, why) in unused.items():
        if given:
            raise UserError(f"{flag}: {why}; leave it out")


def _measured_cone(config: Experiment, weights: Weights) -> Volume:
    path = config.measurement.path
    opened = open_measured_volume(config.measurement)
    geometry = opened.geometry
    grid = grid_of(config, geometry, weights)
    scan = read_measured_volume(config.measurement, opened, relative=config.weighted)
    digest = hashlib.sha256(scan.projections.tobytes())
    if scan.relative_std is not None:
        digest.update(scan.relative_std.tobytes())
    name = f"{Path(path.partition('::')[0]).name} {digest.hexdigest()[:16]}"
    source = ImageSet(
        np.broadcast_to(np.float32(0), (*grid.shape, 1)),
        tuple(f"{name} slice {at}" for at in range(grid.shape[0])),
        weights.window,
        spacing=(grid.slice_mm, grid.pixel_mm, grid.pixel_mm),
    )
    problem = _cone_problem(geometry, "measured")
    views, rows, columns = geometry.measurement_shape
    said = [f"{views} views of {rows} x {columns} pixels"]
    if scan.repaired:
        said.append(
            f"{scan.repaired} of {scan.projections.size} counts were unusable and were filled from their neighbours"
        )

    def case(_: int) -> VolumeCase:
        operator = geometry.operator(grid.shape, grid.pixel_mm, grid.slice_mm)
        found = scaled_lines(
            config.measurement, scan.projections, scan.relative_std, operator, grid.pixel_mm, weights.window
        )
        about = {
            "measurement": path,
            "repaired_counts": scan.repaired,
            "attenuation_per_mm": [found.attenuation.low, found.attenuation.high],
            "noise_sigma": found.measurement.noise_sigma,
        }
        return _case(config, operator, found.measurement, source, problem, None, about)

    def check(_: int) -> None:
        start = jax.jit(geometry.operator(grid.shape, grid.pixel_mm, grid.slice_mm).start)
        lines, noise = lines_values(
            config.measurement, scan.projections, scan.relative_std, weights.window, start, grid.pixel_mm
        )
        check_numbers(f"{path}: its projections", lines)
        check_numbers(f"{path}: its noise", noise)

    notes = (*said, *scan.notes, *grid.notes)
    volume = Volume(
        config,
        what="slice",
        numbers=tuple(range(grid.shape[0])),
        source=source,
        entries={},
        problem=problem,
        case=case,
        check=check,
        truth=False,
        path=path,
        geometry=geometry,
        notes=notes,
    )
    return _with_entry(volume, digest.hexdigest)


def _simulated_cone(config: Experiment, weights: Weights) -> Volume:
    base = open_volume(config, weights)
    geometry = read_scan_geometry(config.scan.geometry)
    if not isinstance(geometry, ConeScan):
        raise UserError(f"{config.scan.geometry}: a {geometry.beam} beam; --scan.geometry simulates a cone beam")
    _evenly(base, "--scan.geometry")
    pixel, between = check_spacing(base.path, base.source.spacing, config)
    depth, height, width, _ = base.source.images.shape
    shape, source = (depth, height, width), dataclasses.replace(base.source, spacing=(between, pixel, pixel))
    attenuation, background = linear_attenuation(source.window)
    problem = _cone_problem(geometry, "simulated")

    def case(_: int) -> VolumeCase:
        operator, truth = geometry.operator(shape, pixel, between), np.asarray(source.images[:], np.float32)[..., 0]
        key = jax.random.fold_in(image_key(config.seed, base.numbers[0]), 0)  # the solver has fold_in(..., 1)
        if config.scan.protocol == "paper":
            measurement = paper_measurement(key, jnp.asarray(truth), operator)  # type: ignore[arg-type]
        else:
            measurement = cone_measurement(
                key,
                jnp.asarray(truth),
                operator,
                photons=config.scan.photons,
                pixel_mm=pixel,
                attenuation=attenuation,
                background=background,
            )
        return _case(config, operator, measurement, source, problem, truth, {})

    missed = geometry.note(shape, pixel, between)
    notes = (*base.notes, *([missed] if missed else []))
    volume = base._replace(source=source, problem=problem, case=case, geometry=geometry, notes=notes)
    return _with_entry(volume, _of_slices(base))


def _side_by_side(config: Experiment, weights: Weights) -> Volume:
    """The slices of `volume.py` in one measurement [D, views, bins]."""
    base = open_volume(config, weights)
    _evenly(base, "--volume.joint")
    if not base.problem.tomography:
        raise UserError(f"--volume.joint: of {base.problem.description} every slice has an operator of its own; leave "
                        "it out")  # fmt: skip
    _, between = spacing = check_spacing(base.path, base.source.spacing, config)
    source = dataclasses.replace(base.source, spacing=(between, spacing[0], spacing[0]))

    def case(_: int) -> VolumeCase:
        cases = [base.case(number) for number in base.numbers]
        y, std = (
            jnp.stack([part[..., 0] for part in parts])
            for parts in zip(*((c.measurement.y, c.measurement.noise_std) for c in cases), strict=True)
        )
        measurement = Measurement(y, std, cases[0].measurement.protocol)
        truth = np.stack([np.asarray(c.truth)[..., 0] for c in cases]) if base.truth else None
        return _case(config, of_slices(cases[0].operator, len(cases)), measurement, source, base.problem, truth, {})

    return _with_entry(base._replace(source=source, case=case), _of_slices(base))


def _evenly(base: Volume, flag: str) -> None:
    """Refuses slices that no one operator of a volume is of."""
    if base.source.places:
        raise UserError(f"{flag}: {base.choice} chooses slices that are not evenly far apart; choose a range of them")


def _of_slices(base: Volume) -> Callable[[], str]:
    return lambda: hashlib.sha256("".join(entry.digest() for entry in base.entries.values()).encode()).hexdigest()


def _cone_problem(geometry: ConeScan, how: str) -> NamedProblem:
    views, _, columns = geometry.measurement_shape
    flat, orbit = parallel_scan(views, columns), geometry.fan is not None
    return dataclasses.replace(
        flat,
        description=f"{views} {how} cone-beam views",
        start="filtered backprojection (Feldkamp)" if orbit else "8 steps of conjugate gradients",
        label="FDK" if orbit else "CG, 8 steps",
    )


def _case(
    config: Experiment,
    operator: Any,
    measurement: Measurement,
    source: ImageSet,
    problem: NamedProblem,
    truth: np.ndarray | None,
    about: dict[str, Any],
) -> VolumeCase:
    assert source.spacing is not None
    return VolumeCase(
        operator,
        measurement,
        source.window,
        source,
        problem,
        truth,
        weighted=config.weighted,
        about=about,
        flatness=source.spacing[2] / source.spacing[0],
        of_slices=not isinstance(operator, ConeTransform),
        along_tv=config.volume.along_tv,
    )


def _with_entry(volume: Volume, digest: Callable[[], str]) -> Volume:
    """The volume with its entry, whose case is built once."""
    held: list[VolumeCase] = []

    def read() -> Item:
        if not held:
            held.append(volume.case(volume.numbers[0]))  # type: ignore[arg-type]
        return Item(held[0], held[0].about)

    file = Path(volume.path.partition("::")[0]).name
    return volume._replace(entries={WHOLE: Entry(file, digest, read, 0)})


def single_run(volume: Volume) -> Experiment:
    """The config whose keys the volume has: those of its first slice."""
    return one_of(volume.config, volume.numbers[0])
