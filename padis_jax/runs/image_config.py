"""The settings of the image that is measured, which sample.py turns into flags --image.FIELD."""

from __future__ import annotations

import dataclasses

from padis_jax.config import check_shaping
from padis_jax.fields import check_fields
from padis_jax.images.choice import Choice, check_choice, one_number
from padis_jax.split import HEAD_CT

DEFAULT_IMAGE = HEAD_CT


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """The image that is measured.

    Attributes:
      path: file, folder or glob of images. DICOM, NIfTI, pictures, arrays, MATLAB or HDF5 (docs/formats.md).
      index: which image of the path, from 0, or several: a volume. A range is one of Python's slices (60:70 is 60 to
        69, 0:90:3 every third of them, -10: the last ten) but must not reach beyond the set; or 3,5,9, or all.
      crop: take the middle of the image, of this height and width.
      resize: scale the image until it covers this height and width, and take the middle.
      grey: take a colour image as grey, 0.299 R + 0.587 G + 0.114 B.
    """

    path: str = DEFAULT_IMAGE
    index: Choice = 41
    crop: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
    grey: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "image.")
        check_shaping("image", self.crop, self.resize)
        check_choice("--image.index", self.index)

    @property
    def number(self) -> int:
        """Of the one image that is chosen; UserError where it is a volume."""
        return one_number("--image.index", self.index)
