"""The measurements of a folder, and what is the same for all of them: the scan's operator, and how a file is read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.measurements.geometry import ScanGeometry
from padis_jax.measurements.load import MeasurementConfig, load_scan
from padis_jax.measurements.scaled import pixel_of, start_of
from padis_jax.measurements.simulate import Measurement
from padis_jax.measurements.sinogram_files import SUFFIXES
from padis_jax.problems.registry import parallel_scan
from padis_jax.runs import batch_job
from padis_jax.runs.case import Case, check_measured, measured_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.unused import changed, flag, of_sinograms
from padis_jax.solvers.checks import check_numbers
from padis_jax.weights import Weights


class Folder(NamedTuple):
    """What is the same for all items.

    Attributes:
      items: files by the names of their items.
      operator: the scan, built when first called.
      case: a file -> its case, without prior.
      check: UserError for what `case` and the solver refuse of a file, which is read whole; nothing is traced.
      about: for job.json.
    """

    items: dict[str, Path]
    operator: Callable[[], Any]
    case: Callable[[Path], Case]
    check: Callable[[Path], None]
    about: dict[str, Any]


def open_folder(config: Experiment, weights: Weights, workdir: Path) -> Folder:
    """The measurements of `config.measurements`.

    Args:
      config: of the run.
      weights: of the prior, whose images the scan is of.
      workdir: of the results, which are no measurements.

    Raises:
      UserError: for a folder without a file that can be used, and settings that its files do not have.
    """
    return (_sinograms if of_sinograms(config) else _measured)(config, weights, workdir)


def _sinograms(config: Experiment, weights: Weights, workdir: Path) -> Folder:
    """Of the scan that `config.scan` describes."""
    scan, shape = config.scan, weights.frame.image_shape
    if told := changed(config.measurement):
        raise UserError(
            f"{flag(f'measurement.{told[0]}')}: the .npz files of {config.measurements} are taken as sinograms of "
            "--scan, in image value times pixel; for line integrals or counts add --measurement.geometry FILE"
        )
    problem = parallel_scan(scan.views, scan.bins)
    items = batch_job.list_items(config.measurements, (".npz",), workdir)
    operator = functools.cache(lambda: problem.build(shape, 1, jax.random.key(0)))

    def case(path: Path) -> Case:
        sinogram, sigma = batch_job.read_sinogram(path, (scan.views, scan.bins))
        y = jnp.asarray(sinogram)[..., None]
        source = ImageSet(np.zeros((1, *shape, 1), np.float32), (path.stem,), weights.window)
        std = jnp.broadcast_to(sigma[..., None] if sigma.ndim else sigma, y.shape)
        measurement = Measurement(y, std, "honest")
        return Case(operator(), measurement, weights.window, source, problem, weighted=config.weighted)

    def check(path: Path) -> None:
        sinogram, _ = batch_job.read_sinogram(path, (scan.views, scan.bins))
        check_numbers(f"{path}: its sinogram", sinogram)

    return Folder(items, operator, case, check, {})


def _measured(config: Experiment, weights: Weights, workdir: Path) -> Folder:
    """The geometry is that of the first file that can be read; others must have the same."""
    if config.measurement.find_centre:
        raise UserError(
            "measurement.find_centre is for one scan, but all of --measurements share one geometry: find the offset "
            "with --measurement.path FILE, and write it into the geometry file as offset_mm"
        )
    shape = weights.frame.image_shape
    items = batch_job.list_items(config.measurements, SUFFIXES, workdir)

    def named(path: Path) -> MeasurementConfig:
        return dataclasses.replace(config.measurement, path=str(path))

    def single(path: Path) -> Experiment:
        return dataclasses.replace(config, measurement=named(path), measurements="")

    first: Path | None = None
    reasons = []
    for path in items.values():
        try:
            geometry = load_scan(named(path)).geometry
        except UserError as error:
            reasons.append(str(error))
            continue
        first = path
        break
    if first is None:
        raise UserError(f"{config.measurements}: none of its {len(items)} files can be used; the first: {reasons[0]}")
    pixel = pixel_of(config.measurement, geometry, shape)
    start = start_of(geometry, shape, pixel)
    operator = functools.cache(lambda: geometry.operator(shape, pixel))

    def compare(path: Path, found: ScanGeometry) -> None:
        if found != geometry:
            fields = [f for f in vars(geometry) if getattr(geometry, f) != getattr(found, f)]
            raise UserError(
                f"{path}: its geometry is not that of {first.name} ({', '.join(fields)}); move it to another folder"
            )

    def case(path: Path) -> Case:
        scan = load_scan(named(path))
        compare(path, scan.geometry)
        return measured_case(single(path), scan, weights, operator=operator())

    def check(path: Path) -> None:
        scan = load_scan(named(path))
        compare(path, scan.geometry)
        check_measured(single(path), scan, weights, start)

    return Folder(items, operator, case, check, {"geometry": dataclasses.asdict(geometry), "pixel_mm": pixel})
