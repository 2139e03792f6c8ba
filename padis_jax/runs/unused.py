"""Settings that a kind of run has no use for: refused, so that nobody waits for what they ask for."""

from __future__ import annotations

import dataclasses
from typing import Any

from padis_jax.errors import UserError

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
