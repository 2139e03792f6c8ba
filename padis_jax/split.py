"""Which slices of a volume are trained on, which settings are tuned on, and which are only tested on.

Neighbouring slices of a volume look alike, so a slice that is left out takes its neighbours with it.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.images.locate import locate

HEAD_CT = "data/head_ct.npz"
HEAD_CT_TEST = (20, 41, 62, 83)
HEAD_CT_VALIDATION = (30, 73)


class Split(NamedTuple):
    """Slice numbers. `gap` holds the neighbours that nobody may train on and that are neither tested nor tuned on."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    gap: tuple[int, ...]

    def distance(self, index: int) -> int:
        """Slices between `index` and the nearest training slice; 0 for a training slice."""
        return min(abs(index - other) for other in self.train)


def split_slices(
    count: int,
    *,
    test: Sequence[int] = HEAD_CT_TEST,
    validation: Sequence[int] = HEAD_CT_VALIDATION,
    test_gap: int = 3,
    validation_gap: int = 2,
    volumes: Sequence[int] = (),
) -> Split:
    """Splits slices 0 .. count - 1.

    Args:
      count: slices in the set.
      test: slices for the reported figures; every slice within `test_gap` of one is left out of training.
      validation: slices for tuning; every slice within `validation_gap` of one is left out of training.
      test_gap: in slices, 0 or more.
      validation_gap: the same.
      volumes: how many slices each volume has, in order; a gap ends where its volume ends. Without it: one volume.

    Returns:
      A Split; its four parts are disjoint, sorted, and together are all slices.

    Raises:
      UserError: for a slice that is not there, that is both test and validation, or if nothing is left for training.
    """
    if min(test_gap, validation_gap) < 0:
        raise UserError(f"split: gaps must be 0 or more, got test_gap {test_gap} and validation_gap {validation_gap}")
    for kind, chosen in (("test", test), ("validation", validation)):
        for index in chosen:
            if not 0 <= index < count:
                raise UserError(f"split: there is no {kind} slice {index}, the set has {count}, counted from 0")
    if both := sorted(set(test) & set(validation)):
        raise UserError(f"split: slice {both[0]} is named for test and for validation; take it out of one of them")
    if volumes and sum(volumes) != count:
        raise ValueError(f"split: volumes of {sum(volumes)} slices are not a set of {count}")
    of = [number for number, size in enumerate(volumes or (count,)) for _ in range(size)]
    left_out = {i for i in range(count) if any(of[i] == of[t] and abs(i - t) <= test_gap for t in test)}
    left_out |= {i for i in range(count) if any(of[i] == of[v] and abs(i - v) <= validation_gap for v in validation)}
    if len(left_out) == count:
        raise UserError(f"split: none of {count} slices is left to train on; use smaller gaps or fewer held-out slices")
    return Split(
        train=tuple(i for i in range(count) if i not in left_out),
        validation=tuple(sorted(set(validation))),
        test=tuple(sorted(set(test))),
        gap=tuple(sorted(left_out - set(test) - set(validation))),
    )


def slices_of_volumes(volumes: Mapping[str, int], names: Sequence[str]) -> tuple[int, ...]:
    """The slices of whole volumes, to be held out by patient instead of by slice.

    Args:
      volumes: name -> number of slices, in order (`ImageSet.volumes`).
      names: of the wanted volumes; the last part of a name's path is enough where only one volume has it.

    Raises:
      UserError: for a name that no volume has, or several have.
    """
    starts, start = {}, 0
    for volume, count in volumes.items():
        starts[volume] = range(start, start + count)
        start += count
    chosen: list[int] = []
    for name in names:
        found = [name] if name in starts else [v for v in starts if v.endswith(f"/{name}")]
        if len(found) != 1:
            known = ", ".join(list(volumes)[:8])
            raise UserError(f"split: {len(found)} volumes are called {name!r}; known: {known}")
        chosen += starts[found[0]]
    return tuple(chosen)


def split_of(data: DataConfig, volumes: Mapping[str, int], count: int) -> Split:
    """The split that a training run's settings ask for.

    Args:
      data: the settings; `limit` is left to `limited`.
      volumes: of the images (`ImageSet.volumes`).
      count: images in all.

    Raises:
      UserError: for what `slices_of_volumes` and `split_slices` refuse.
    """
    return split_slices(
        count,
        test=(*data.test, *slices_of_volumes(volumes, data.test_volumes)),
        validation=(*data.validation, *slices_of_volumes(volumes, data.validation_volumes)),
        test_gap=data.test_gap,
        validation_gap=data.validation_gap,
        volumes=tuple(volumes.values()),
    )


def limited(train: Sequence[int], limit: int) -> tuple[int, ...]:
    """`limit` of the slices, spread evenly; all of them for 0, or where there are no more."""
    return tuple(train[i] for i in spread(len(train), limit or len(train)))


def spread(total: int, count: int) -> tuple[int, ...]:
    """`count` of the numbers 0 .. total - 1, spread evenly, first and last among them; all where there are no more."""
    return tuple(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())


def is_head_ct(path: str | Path) -> bool:
    """Whether a path names the head CT, whose test slices nobody may train on: see `same_images`."""
    return same_images(path, HEAD_CT)


def same_images(path: str | Path, other: str | Path) -> bool:
    """Whether two paths name the same images: however they are spelt, by way of a link, or as a copy of the file.

    Args:
      path: file, folder or glob.
      other: likewise, perhaps noted in another working folder: where it is relative and not here, a path that ends
        with it is taken for the same.
    """
    if not str(path) or not str(other):
        return False
    files, others = _files(path), _files(other)
    if files and others:
        return files == others or (
            len(files) == len(others) == 1 and filecmp.cmp(files[0], others[0], shallow=False)  # sizes first
        )
    tail, whole = (Path(str(name).partition("::")[0]) for name in (other, path))
    if tail.is_absolute():
        return whole.resolve() == tail.resolve()
    named = tuple(part for part in Path(os.path.normpath(tail)).parts if part != "..")
    return not others and whole.resolve().parts[-len(named) :] == named


def _files(path: str | Path) -> list[Path]:
    """All files of the path, sorted; none if it is not here."""
    try:
        return sorted(file.resolve() for group in locate(path)[0] for file in group.files)
    except UserError:
        return []
