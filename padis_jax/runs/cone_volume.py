"""The volume of a cone-beam scan, measured, or simulated from the slices that --image.index chooses."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.measurements.attenuation import linear_attenuation
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.measurements.scaled import lines_values, scaled_lines
from padis_jax.measurements.simulate import paper_measurement
from padis_jax.measurements.simulate_cone import cone_measurement
from padis_jax.measurements.volume_load import open_measured_volume, read_measured_volume
from padis_jax.measurements.volume_scan import read_scan_geometry
from padis_jax.problems.registry import NamedProblem, parallel_scan
from padis_jax.runs.case import image_key
from padis_jax.runs.config import Experiment
from padis_jax.runs.grid import check_spacing, grid_of
from padis_jax.runs.volume import Volume, open_volume
from padis_jax.runs.volume_case import VolumeCase
from padis_jax.runs.whole_case import check_even, digest_of, whole_case, with_entry
from padis_jax.solvers.checks import check_numbers
from padis_jax.weights import Weights


def measured_cone(config: Experiment, weights: Weights) -> Volume:
    """The volume of the measured cone-beam scan that the config names."""
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
        return whole_case(config, operator, found.measurement, source, problem, None, about)

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
    return with_entry(volume, digest.hexdigest)


def simulated_cone(config: Experiment, weights: Weights) -> Volume:
    """The volume of a cone-beam scan that is simulated from the slices that the config chooses."""
    base = open_volume(config, weights)
    geometry = read_scan_geometry(config.scan.geometry)
    if not isinstance(geometry, ConeScan):
        raise UserError(f"{config.scan.geometry}: a {geometry.beam} beam; --scan.geometry simulates a cone beam")
    check_even(base, "--scan.geometry")
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
        return whole_case(config, operator, measurement, source, problem, truth, {})

    missed = geometry.note(shape, pixel, between)
    notes = (*base.notes, *([missed] if missed else []))
    volume = base._replace(source=source, problem=problem, case=case, geometry=geometry, notes=notes)
    return with_entry(volume, digest_of(base))


def _cone_problem(geometry: ConeScan, how: str) -> NamedProblem:
    views, _, columns = geometry.measurement_shape
    flat, orbit = parallel_scan(views, columns), geometry.fan is not None
    return dataclasses.replace(
        flat,
        description=f"{views} {how} cone-beam views",
        start="filtered backprojection (Feldkamp)" if orbit else "8 steps of conjugate gradients",
        label="FDK" if orbit else "CG, 8 steps",
    )
