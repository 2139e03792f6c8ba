"""The case of a volume that is solved as a whole, of which its entry in the job is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import base_name
from padis_jax.images import ImageSet
from padis_jax.measurements.simulate import Measurement
from padis_jax.operators.cone import ConeTransform
from padis_jax.problems.registry import NamedProblem
from padis_jax.runs.config import Experiment
from padis_jax.runs.job import Entry, Item
from padis_jax.runs.volume import Volume
from padis_jax.runs.volume_case import VolumeCase

WHOLE = "volume"  # the one entry of a volume that is opened, of which the rows of the job are made


def check_even(base: Volume, flag: str) -> None:
    """Refuses slices that no one operator of a volume is of."""
    if base.source.places:
        raise UserError(f"{flag}: {base.choice} chooses slices that are not evenly far apart; choose a range of them")


def digest_of(base: Volume) -> Callable[[], str]:
    """What says whether these are the same slices."""
    return lambda: hashlib.sha256("".join(entry.digest() for entry in base.entries.values()).encode()).hexdigest()


def whole_case(
    config: Experiment,
    operator: Any,
    measurement: Measurement,
    source: ImageSet,
    problem: NamedProblem,
    truth: np.ndarray | None,
    about: dict[str, Any],
) -> VolumeCase:
    """The case of a measured volume."""
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


def with_entry(volume: Volume, digest: Callable[[], str]) -> Volume:
    """The volume with its entry, whose case is built once."""
    held: list[VolumeCase] = []

    def read() -> Item:
        if not held:
            held.append(volume.case(volume.numbers[0]))  # type: ignore[arg-type]
        return Item(held[0], held[0].about)

    file = base_name(volume.path.partition("::")[0])
    return volume._replace(entries={WHOLE: Entry(file, digest, read, 0)})
