"""Fixed overlapping patches that cover the image, averaged or stitched: what PaDIS (arXiv 2406.02462) compares with.

Along an axis of N pixels patches of P pixels start every P - overlap pixels from the image's edge; the last one ends at
the other edge, so its overlap may be larger. The padding is not covered.

    average   a pixel is the mean over the patches that hold it
    stitch    patches are written row by row, so a pixel is that of the last patch that holds it

Cost: on 256 x 256 pixels there are 6 x 6 patches of 56 pixels that share 8, where a random tiling has 5 x 5: 1.4 times
the network's work, which tables count as one evaluation all the same. Patches of 64 are 5 x 5 in both.

Both work along the axes one after the other: patches are cut, added and picked with index arrays that are known before
tracing.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from padis_jax.patches import Frame


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Frozen geometry of overlapping patches.

    Attributes:
      frame: image, patch and padding.
      overlap: pixels that neighbours share, 0 to P - 1.
      join: "average" or "stitch".
    """

    frame: Frame
    overlap: int = 8
    join: Literal["average", "stitch"] = "average"

    def __post_init__(self) -> None:
        if self.join not in ("average", "stitch"):
            raise ValueError(f"join is {self.join!r}: use 'average' or 'stitch'")
        if self.frame.patch == 0 or self.frame.patch > min(self.frame.image_shape):
            raise ValueError(
                f"overlapping patches need a patch no larger than the image, not {self.frame.patch} pixels (0: the "
                f"whole image) on {self.frame.image_shape}"
            )
        if not 0 <= self.overlap < self.frame.patch:
            raise ValueError(f"overlap is {self.overlap}: use 0 to {self.frame.patch - 1}, less than the patch")

    @property
    def starts(self) -> tuple[np.ndarray, np.ndarray]:
        """First rows and first columns of the patches on the padded plane."""
        p, step = self.frame.patch, self.frame.patch - self.overlap
        rows, columns = (
            margin + np.minimum(np.arange(0, n - p + step, step), n - p)
            for n, margin in zip(self.frame.image_shape, self.frame.margin, strict=True)
        )
        return rows, columns

    @property
    def patch_count(self) -> int:
        """Number of patches."""
        rows, columns = self.starts
        return len(rows) * len(columns)

    def cut(self, plane: Array) -> Array:
        """[Hp, Wp, C] -> [patches, P, P, C], row by row."""
        self.frame.check_plane(plane)
        p, (rows, columns) = self.frame.patch, self.starts
        picked = jnp.take(jnp.take(plane, _indices(rows, p), axis=0), _indices(columns, p), axis=1)
        split = picked.reshape(len(rows), p, len(columns), p, -1).swapaxes(1, 2)
        return split.reshape(self.patch_count, p, p, -1)

    def put(self, patches: Array) -> Array:
        """[patches, P, P, C] -> [Hp, Wp, C], joined; 0 outside of the image."""
        p, (rows, columns) = self.frame.patch, self.starts
        if patches.shape[:-1] != (self.patch_count, p, p):
            raise ValueError(f"overlap: expected patches {(self.patch_count, p, p, 'C')}, got {patches.shape}")
        plane = patches.reshape(len(rows), len(columns), p, p, -1).swapaxes(1, 2)
        plane = plane.reshape(len(rows) * p, len(columns) * p, -1)
        for axis, (starts, n, margin) in enumerate(
            zip((rows, columns), self.frame.image_shape, self.frame.margin, strict=True)
        ):
            where = _indices(starts, p) - margin  # pixel of the image for each row (column) of all patches
            if self.join == "average":
                share = (1 / np.bincount(where, minlength=n)[where]).astype(np.float32)
                weighted = plane * jnp.expand_dims(share, (1 - axis, 2))
                shape = (n, plane.shape[1], plane.shape[2]) if axis == 0 else (plane.shape[0], n, plane.shape[2])
                at = (where,) if axis == 0 else (slice(None), where)
                plane = jnp.zeros(shape, plane.dtype).at[at].add(weighted)
            else:
                last = np.zeros(n, int)
                last[where] = np.arange(len(where))  # where indices repeat, the last one counts
                plane = jnp.take(plane, last, axis=axis)
        return self.frame.pad(plane)


def _indices(starts: np.ndarray, patch: int) -> np.ndarray:
    return (starts[:, None] + np.arange(patch)).ravel()
