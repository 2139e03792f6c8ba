"""Training batches: random crops of padded images with their positions, a pure function of (seed, step).

    patch size p ~ categorical(probabilities);  image ~ uniform;  corner ~ uniform over the padded plane

The batch of a step is drawn whole, so neither the number of devices nor a resumed run changes it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from padis_jax.fields import check_fields
from padis_jax.patches import Frame
from padis_jax.positions import plane_positions
from padis_jax.streamed import CroppedImages, StreamedImages


@dataclasses.dataclass(frozen=True)
class PatchConfig:
    """Patches that training draws.

    Attributes:
      sizes: patch sides in pixels; the largest reconstructs. It also defines the frame; (0,) is the whole-image model:
        whole images, without padding.
      probabilities: how often a batch has each size; sums to 1.
      batch: patches per batch, for each size.
      flips: mirror images left to right with probability 1/2 (before padding, so positions stay those of the plane).
      depth: neighbouring slices of a volume in a patch, which are the network's channels; 1 for images.
      skips: distances of the slices of a patch, of which a batch has one, drawn at random: 1 3 for neighbours and
        every third slice. Of volumes.
    """

    sizes: tuple[int, ...] = (16, 32, 56)
    probabilities: tuple[float, ...] = (0.2, 0.3, 0.5)
    batch: tuple[int, ...] = (512, 256, 128)
    flips: bool = False
    depth: int = 1
    skips: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        check_fields(self, "patches.")
        if not self.sizes or not len(self.sizes) == len(self.probabilities) == len(self.batch):
            raise ValueError(
                f"patches: sizes {self.sizes}, probabilities {self.probabilities} and batch {self.batch} "
                "must have one entry per patch size"
            )
        if (min(self.sizes) < 1 and self.sizes != (0,)) or min(self.batch) < 1:
            raise ValueError(
                f"patches: sizes {self.sizes} and batch {self.batch} must be positive, or sizes (0,) for whole images"
            )
        if max(self.sizes) > 2**14 or max(self.batch) > 2**20 or len(self.sizes) > 64:
            raise ValueError("patches: sizes beyond 16384 pixels, batches beyond 2^20 or more than 64 sizes")
        if not 1 <= self.depth <= 64:
            raise ValueError(f"patches.depth is {self.depth}: it must be 1 (images) to 64 slices")
        if len(set(self.skips)) < max(1, len(self.skips)) or not all(1 <= skip <= 64 for skip in self.skips):
            raise ValueError(f"patches.skips is {self.skips}: distances of slices, each once, 1 (neighbours) to 64")
        if 1 not in self.skips:
            raise ValueError(
                f"patches.skips is {self.skips}: 1 must be among them, every volume is solved by neighbours"
            )
        if self.depth == 1 and self.skips != (1,):
            raise ValueError(f"patches.skips is {self.skips}, but patches of one slice have none: set patches.depth")
        if min(self.probabilities) < 0 or not abs(sum(self.probabilities) - 1) <= 1e-6:
            raise ValueError(f"patches.probabilities is {self.probabilities}: none negative, and they must sum to 1")

    @property
    def largest(self) -> int:
        """Side of the patch that reconstructs; 0 for the whole image."""
        return max(self.sizes)


class Batch(NamedTuple):
    """patches [b, p, p, c] float32 in image units, positions [b, p, p, 2] float32."""

    patches: np.ndarray
    positions: np.ndarray


def pad_images(images: np.ndarray | StreamedImages, frame: Frame) -> np.ndarray | StreamedImages:
    """[n, H, W, C] -> [n, H + 2 M_y, W + 2 M_x, C], zeros around. Streamed images stay streamed."""
    my, mx = frame.margin
    if isinstance(images, StreamedImages):
        return images.padded((my, mx))
    return np.pad(images, ((0, 0), (my, my), (mx, mx), (0, 0)))


def draw_batch(padded: np.ndarray | StreamedImages, config: PatchConfig, seed: int, step: int) -> Batch:
    """The batch of one training step.

    Args:
      padded: [n, Hp, Wp, C] from `pad_images`; streamed images give the same batch as those in memory.
      config: sizes, probabilities, counts.
      seed: root seed of the run.
      step: number of the step, from 0.

    Returns:
      Patches and their positions, all of one size.
    """
    rng = np.random.default_rng([seed, step])
    index = rng.choice(len(config.sizes), p=np.asarray(config.probabilities) / sum(config.probabilities))
    return crop_batch(rng, padded, config.sizes[index], config.batch[index], flips=config.flips)


def crop_batch(
    rng: np.random.Generator, padded: np.ndarray | StreamedImages, size: int, count: int, *, flips: bool = False
) -> Batch:
    """`count` crops of `size` pixels (0: whole planes), uniform over images and corners."""
    n, height, width, _ = padded.shape
    rows, columns = (size, size) if size else (height, width)
    plane = plane_positions((height, width))
    image = rng.integers(0, n, count)
    top, left = rng.integers(0, height - rows + 1, count), rng.integers(0, width - columns + 1, count)
    mirrored = rng.random(count) < 0.5 if flips else np.zeros(count, bool)
    if isinstance(padded, CroppedImages):  # another crop of the image for every patch
        part = padded.draw(rng, image)
    else:
        images = padded.fetch(image) if isinstance(padded, StreamedImages) else padded

        def part(number: int, y: int, x: int, rows: int, columns: int) -> np.ndarray:
            return images[image[number]][y : y + rows, x : x + columns]

    patches = []
    for number, (y, x, mirror) in enumerate(zip(top, left, mirrored, strict=True)):
        # The crop at column x of the mirrored image is the mirrored crop at column width - columns - x.
        patch = part(number, y, width - columns - x if mirror else x, rows, columns)
        patches.append(patch[:, ::-1] if mirror else patch)
    positions = [plane[y : y + rows, x : x + columns] for y, x in zip(top, left, strict=True)]
    return Batch(np.stack(patches).astype(np.float32), np.stack(positions))
