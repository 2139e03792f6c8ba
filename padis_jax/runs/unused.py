"""Settings that a kind of run has no use for: refused, so that nobody waits for what they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from padis_jax.errors import UserError
from padis_jax.problems.registry import PROBLEMS

# What a config asks for -> what such a run cannot do. A config file may name images, scan and baseline, and is then
# used for all kinds of runs; samples, further rows and files are asked for.
UNUSED = {
    "measurements": ("generate", "samples", "classical", "save_as", "anonymise", "display"),
    "generate": ("samples", "classical", "save_as", "anonymise", "display", "weighted"),
}
WRITES = {
    "measurements": "reconstructs each file once, into a .npz of its own",
    "generate": "draws images from the prior alone, into generated_NN.png and generated.npz",
}


def check_unused(config: Any) -> None:
    """Refuses settings of an `Experiment` that would be passed over.

    Raises:
      UserError: naming the flag and what makes it useless.
    """
    measured = next(iter(changed(config.measurement)), "")
    for name, unused in UNUSED.items():
        if not getattr(config, name):
            continue
        if found := [field for field in unused if field in changed(config)]:
            raise UserError(f"{flag(found[0])}: --{name} {WRITES[name]}; leave one of the two out")
        if config.measurement.path:
            raise UserError(f"--measurement.path {config.measurement.path}: --{name} {WRITES[name]}; leave one out")
    if config.samples and (config.solver.average or 1) > 1:
        raise UserError(
            f"--solver.average {config.solver.average}: --samples are single chains, and their mean is one of the "
            "rows; leave one of the two out"
        )
    if measured and not (config.measurement.path or config.measurements):
        raise UserError(
            f"{flag(f'measurement.{measured}')}: belongs to a measured scan; name that by --measurement.path, or leave "
            "it out"
        )


def changed(settings: Any) -> list[str]:
    """The fields of a dataclass that are not at their defaults."""
    usual = type(settings)()
    return [f.name for f in dataclasses.fields(settings) if getattr(settings, f.name) != getattr(usual, f.name)]


def flag(field: str) -> str:
    """A field as the command line names it."""
    return f"--{field.replace('_', '-')}"


def of_sinograms(config: Any) -> bool:
    """Whether the folder `config.measurements` holds sinograms of `config.scan`, not scans with a geometry."""
    return not config.measurement.geometry and any(Path(config.measurements).glob("*.npz"))


def check_passed_over(found: Any, given: Any) -> None:
    """Refuses flags that the run would not look at.

    Args:
      found: the `Experiment` that flags made.
      given: the one that they changed, of a config file or the defaults, whose own settings may serve other runs.

    Raises:
      UserError: naming the flag and why it has no use.
    """
    named = {
        name
        for name in ("overlap", "generate_levels", "batch")
        if getattr(found, name) not in (getattr(given, name), getattr(type(found), name))
    }
    for part in ("image", "scan", "tv"):
        before, now = vars(getattr(given, part)), vars(getattr(found, part))
        named |= {f"{part}.{name}" for name in now if now[name] != before[name]}
    for fields, reason in _passed_over(found):
        if unused := sorted(named & fields):
            raise UserError(f"{flag(unused[0])}: {reason}; leave it out")


def check_training(found: Any, given: Any) -> None:
    """As `check_passed_over`, of the `Config` of a training."""
    data = found.data
    held_out = bool(data.validation or data.validation_volumes or data.layout)
    useless = {
        "data.unit": (data.low is None, "is that of --data.low and --data.high, which are not given"),
        "data.test_gap": (not data.test, "is that of --data.test, which holds nothing out"),
        "data.validation_gap": (not data.validation, "is that of --data.validation, which holds nothing out"),
        "run.validate_every": (not held_out, "no slice is held out to validate with, --data.validation"),
    }
    for field, (unused, reason) in useless.items():
        part, name = field.split(".")
        if unused and getattr(getattr(found, part), name) != getattr(getattr(given, part), name):
            raise UserError(f"{flag(field)}: {reason}; leave it out")


def _passed_over(config: Any) -> Iterator[tuple[set[str], str]]:
    """(fields, why the run does not look at them)."""
    image = {f"image.{name}" for name in ("path", "crop", "resize", "grey")}  # the index numbers a run's random keys
    simulated = {f"scan.{name}" for name in ("protocol", "photons", "pixel_mm", "geometry")}
    scan = simulated | {"scan.views", "scan.bins"}
    if config.generate:
        yield image | scan | {"tv.weight", "tv.iterations"}, "--generate draws from the prior alone"
    elif path := config.measurement.path:
        yield image | scan, f"{path} was measured, and nothing is simulated"
    elif folder := config.measurements:
        stated = not of_sinograms(config) and any(Path(folder).glob("*"))
        yield image | (scan if stated else simulated), f"the files of {folder} were measured, and nothing is simulated"
    else:
        named = PROBLEMS.get(config.problem)
        if config.problem and (named is None or not named.tomography):
            own = simulated - {"scan.protocol"}  # which commands over all problems give
            yield own, f"--problem {config.problem} is no scan"
        if config.scan.protocol == "paper":
            yield {"scan.photons"}, "--scan.protocol paper has no noise, and counts nothing"
    if not config.tiling.startswith("overlap"):
        yield {"overlap"}, f"patches of --tiling {config.tiling} do not overlap"
    if not (config.measurements or config.several):
        yield {"batch"}, "is of --measurements, and of slices that are solved one by one"
    if not config.generate:
        yield {"generate_levels"}, "belongs to --generate N"
