"""The settings of a volume that is solved as a whole, which sample.py turns into flags --volume.FIELD."""

from __future__ import annotations

import dataclasses
import math

from padis_jax.errors import UserError
from padis_jax.fields import check_count, check_fields, check_length


@dataclasses.dataclass(frozen=True)
class VolumeConfig:
    """A volume that is solved as a whole: one data step, and the prior slice by slice or slab by slab.

    Attributes:
      shape: slices, rows and columns of the volume of a cone-beam scan; the rows and columns that the weights know.
      slice_mm: distance of slices; 0 for that of the file, or of a measured cone's volume the side of a pixel.
      joint: solve the chosen rows of a measured scan (--measurement.row), or slices of --image.path that are simulated
        (--image.index), in one data step, too. Without it they are solved one by one.
      along_tv: weight of the total variation along z in the data step, of dds, diffpir and plug-and-play; 0 for none.
      first: place of the volume's slice 0 in the volumes that weights of slabs were trained on, where these know z.
      skip: distance of the slices of a slab on every other noise level, of weights of slabs that were trained with it
        (patches.skips); 1 for neighbours on all levels.
    """

    shape: tuple[int, int, int] | None = None
    slice_mm: float = 0.0
    joint: bool = False
    along_tv: float = 0.0
    first: int | None = None
    skip: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "volume.")
        for side in self.shape or ():
            check_count("volume.shape", side)
        if self.first is not None:
            check_count("volume.first", self.first, 0)
        check_count("volume.skip", self.skip)
        if not (0 <= self.slice_mm < math.inf and 0 <= self.along_tv < math.inf):
            raise UserError(
                f"volume: slice_mm {self.slice_mm} and along_tv {self.along_tv} must be finite and not negative"
            )
        check_length("volume.slice_mm", self.slice_mm, 1e-9)

    @property
    def given(self) -> str:
        """The flag of the first field that is set, or ""."""
        names = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        return f"--volume.{names[0].replace('_', '-')}" if names else ""
