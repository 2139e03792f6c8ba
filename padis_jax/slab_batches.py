"""Training batches of slabs: d neighbouring slices of one volume, a pure function of (seed, step).

    patch size p ~ categorical(probabilities);  slab ~ uniform over the places of all runs;  corner ~ uniform

A run is a stretch of neighbouring slices of one volume that may be trained on. Slabs begin at 1 - d to L - 1 of a run
of L slices: those that reach beyond its ends hold zeros there, as the slabs at the ends of a volume do when it is
reconstructed (slabs.py), and `kept` leaves them out of the loss. So no slab holds a slice that is held out, and the
network learns the ends of volumes that are a part of another.

With `skips` a batch has one distance s of slices, drawn for it. Slabs of slices that are s > 1 apart begin at s (1 - d)
to L - 1 of a run, as if the run were the volume; and where all d slices of a slab may be trained on, it is drawn across
what is held out between them, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from padis_jax.batches import PatchConfig
from padis_jax.positions import plane_positions
from padis_jax.slabs import slab_heights
from padis_jax.streamed import StreamedImages


@dataclasses.dataclass(frozen=True)
class Run:
    """Neighbouring slices.

    Attributes:
      start: index of the first in the training images.
      count: how many.
      first: number of the first in its volume.
      total: slices of that volume.
      volume: number of the volume in the set.
    """

    start: int
    count: int
    first: int
    total: int
    volume: int = 0


class SlabBatch(NamedTuple):
    """patches [b, p, p, d] float32 in image units, positions [b, p, p, 2 or 3], kept [b, d]: 0 beyond the ends."""

    patches: np.ndarray
    positions: np.ndarray
    kept: np.ndarray


def runs_of(chosen: Sequence[int], volumes: Sequence[int]) -> tuple[Run, ...]:
    """The runs of neighbours among chosen slices.

    Args:
      chosen: numbers of slices in the set, rising.
      volumes: how many slices each volume of the set has, in order.
    """
    volume_of = np.repeat(np.arange(len(volumes)), volumes)
    begins = np.concatenate([[0], np.cumsum(volumes)])
    found: list[Run] = []
    for index, number in enumerate(chosen):
        volume = volume_of[number]
        joins = index > 0 and chosen[index - 1] == number - 1 and volume_of[number - 1] == volume
        if joins:
            found[-1] = dataclasses.replace(found[-1], count=found[-1].count + 1)
        else:
            found.append(Run(index, 1, int(number - begins[volume]), int(volumes[volume]), int(volume)))
    return tuple(found)


def draw_slabs(
    padded: np.ndarray | StreamedImages,
    runs: Sequence[Run],
    config: PatchConfig,
    seed: int,
    step: int,
    *,
    seen: int = 2,
) -> SlabBatch:
    """The batch of one training step.

    Args:
      padded: [n, Hp, Wp, 1] from `batches.pad_images`.
      runs: of these images.
      config: sizes, probabilities, counts; `depth` is d, `skips` the distances of slices.
      seed: root seed of the run.
      step: number of the step, from 0.
      seen: coordinates of the positions, 2 or 3 (with z).

    Returns:
      Slabs of one size.
    """
    rng = np.random.default_rng([seed, step])
    index = rng.choice(len(config.sizes), p=np.asarray(config.probabilities) / sum(config.probabilities))
    size, count, skip = config.sizes[index], config.batch[index], config.skips[0]
    if len(config.skips) > 1:  # else nothing more is drawn, and batches are as they were before there were skips
        skip = config.skips[rng.integers(len(config.skips))]
    return crop_slabs(rng, padded, runs, size, count, depth=config.depth, skip=skip, flips=config.flips, seen=seen)


def slab_places(runs: Sequence[Run], depth: int, skip: int = 1) -> list[tuple[Run, int, tuple[int, ...]]]:
    """The places of slabs of slices that are `skip` apart.

    Args:
      runs: of the training images.
      depth: d.
      skip: s.

    Returns:
      For each place its run, the slice of the run that it begins at, and the indices of its d slices in the training
      images, -1 where it holds zeros. First those of each run, then, for s > 1, those across held-out slices.
    """
    steps = range(0, depth * skip, skip)
    places = []
    for run in runs:
        for begin in range(-steps[-1], run.count):
            held = tuple(run.start + begin + k if 0 <= begin + k < run.count else -1 for k in steps)
            if max(held) >= 0:  # slabs of slices that are apart may step over a short run
                places.append((run, begin, held))
    if skip > 1:
        index = {(run.volume, run.first + k): run.start + k for run in runs for k in range(run.count)}
        for run in runs:
            for begin in range(run.count):
                held = tuple(index.get((run.volume, run.first + begin + k), -1) for k in steps)
                if min(held) >= 0 and begin + steps[-1] >= run.count:
                    places.append((run, begin, held))
    return places


def crop_slabs(
    rng: np.random.Generator,
    padded: np.ndarray | StreamedImages,
    runs: Sequence[Run],
    size: int,
    count: int,
    *,
    depth: int,
    skip: int = 1,
    flips: bool = False,
    seen: int = 2,
) -> SlabBatch:
    """`count` slabs of `depth` slices, `skip` apart, `size` pixels a side (0: whole planes), uniform over `slab_places`
    and corners.
    """
    _, height, width, channels = padded.shape
    if channels != 1:
        raise ValueError(f"slabs: images have {channels} channels, but the channels of a slab are its slices")
    rows, columns = (size, size) if size else (height, width)
    places = slab_places(runs, depth, skip)
    chosen = [places[i] for i in rng.integers(0, len(places), count)]
    top, left = rng.integers(0, height - rows + 1, count), rng.integers(0, width - columns + 1, count)
    mirrored = rng.random(count) < 0.5 if flips else np.zeros(count, bool)
    needed = {index for _, _, held in chosen for index in held if index >= 0}
    images = padded.fetch(needed) if isinstance(padded, StreamedImages) else padded

    plane = plane_positions((height, width))
    patches = np.zeros((count, rows, columns, depth), np.float32)
    kept = np.zeros((count, depth), np.float32)
    positions = np.empty((count, rows, columns, seen), np.float32)
    for number, (run, begin, held) in enumerate(chosen):
        y, x, mirror = top[number], left[number], mirrored[number]
        at = width - columns - x if mirror else x  # the crop of the mirrored image is the mirrored crop
        for channel, index in enumerate(held):
            if index >= 0:
                part = images[index][y : y + rows, at : at + columns, 0]
                patches[number, ..., channel] = part[:, ::-1] if mirror else part
                kept[number, channel] = 1
        positions[number, ..., :2] = plane[y : y + rows, x : x + columns]
        if seen == 3:
            heights = slab_heights(depth, run.total, skip)
            positions[number, ..., 2] = heights[run.first + begin + depth * skip - 1]
    return SlabBatch(patches, positions, kept)
