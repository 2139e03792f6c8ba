"""A volume that is solved as a whole: one case, of a cone-beam scan or of slices whose measurements lie side by side.

A cone-beam scan is measured, or simulated from the volume that --image.index chooses. Slices, and rows of a measured
scan, are those of `volume.py`: slice i is measured with the key of its single run here, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.measurements.simulate import Measurement
from padis_jax.measurements.volume_load import is_cone
from padis_jax.operators.slices import of_slices
from padis_jax.runs.cone_volume import measured_cone, simulated_cone
from padis_jax.runs.config import Experiment
from padis_jax.runs.grid import check_spacing
from padis_jax.runs.job import Entry
from padis_jax.runs.volume import Volume, one_of, open_volume
from padis_jax.runs.volume_case import VolumeCase
from padis_jax.runs.whole_case import WHOLE, check_even, digest_of, whole_case, with_entry
from padis_jax.solvers.volumes import TIED
from padis_jax.weights import Weights


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
        return measured_cone(config, plane)
    return simulated_cone(config, plane) if config.scan.geometry else _side_by_side(config, plane)


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


def _side_by_side(config: Experiment, weights: Weights) -> Volume:
    """The slices of `volume.py` in one measurement [D, views, bins]."""
    base = open_volume(config, weights)
    check_even(base, "--volume.joint")
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
        return whole_case(
            config, of_slices(cases[0].operator, len(cases)), measurement, source, base.problem, truth, {}
        )

    return with_entry(base._replace(source=source, case=case), digest_of(base))


def single_run(volume: Volume) -> Experiment:
    """The config whose keys the volume has: those of its first slice."""
    return one_of(volume.config, volume.numbers[0])
