"""Images of one size in [0, 1] with what is needed to write results beside them: window, spacing and origin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from padis_jax.errors import UserError
from padis_jax.images.source import Origin, Spacing
from padis_jax.streamed import StreamedImages
from padis_jax.window import Window


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size.

    Attributes:
      images: float32 [N, H, W, C] in [0, 1]; an array, or one that is read as it is indexed.
      names: N names for messages and files.
      window: what 0 and 1 stand for.
      spacing: millimetres between slices, rows and columns, where the file tells.
      origins: N Origins (file, number in the file, volume); empty for images that come from no file.
      rows_up: row 0 is to be shown at the bottom.
      notes: what a user should know about the files, each a line.
      stored: what 0 and 1 stand for in the file: of bytes, whose `window` is 0 to 1, 0 to 255. None without a file.
      clipped: number of an image, which is read -> the note on what the window clips of it, if anything.
      places: mm of each along the volume, where they are not evenly spaced.
      mixed: what differs in spacing, where volumes or slices do; else "".
    """

    images: np.ndarray | StreamedImages
    names: tuple[str, ...]
    window: Window
    spacing: Spacing | None = None
    origins: tuple[Origin, ...] = ()
    rows_up: bool = False
    notes: tuple[str, ...] = ()
    stored: Window | None = None
    clipped: Callable[[int], list[str]] = lambda index: []
    places: tuple[float, ...] = ()
    mixed: str = ""

    @property
    def volumes(self) -> dict[str, int]:
        """Name -> number of images of each volume, in order; their images are consecutive."""
        counts: dict[str, int] = {}
        for origin in self.origins:
            counts[origin.volume] = counts.get(origin.volume, 0) + 1
        return counts

    @property
    def _where(self) -> str:
        files = {str(origin.file) for origin in self.origins}
        return f"{files.pop()}: " if len(files) == 1 else ""

    def select(self, indices: Sequence[int]) -> ImageSet:
        """The images at `indices`, in that order, and how far they are apart; UserError if there is no such image."""
        for index in indices:
            if not 0 <= index < len(self.names):
                raise UserError(
                    f"{self._where}there is no image {index} of {len(self.names)}, counted from 0 to "
                    f"{len(self.names) - 1}: choose another by --image.index"
                )
        images = self.images
        spacing, places = self._apart(indices)
        return dataclasses.replace(
            self,
            images=images.select(indices) if isinstance(images, StreamedImages) else images[list(indices)],
            clipped=lambda index: self.clipped(indices[index]),
            names=tuple(self.names[index] for index in indices),
            origins=tuple(self.origins[index] for index in indices) if self.origins else (),
            spacing=spacing,
            places=places,
        )

    def _apart(self, indices: Sequence[int]) -> tuple[Spacing | None, tuple[float, ...]]:
        """(spacing, places) of a selection: every second slice is twice as far apart."""
        if self.spacing is None or len(indices) < 2:
            return self.spacing, ()
        between, rows, columns = self.spacing
        places = tuple(self.places[index] if self.places else index * between for index in indices)
        gaps = np.diff(places)
        if gaps[0] > 0 and np.allclose(gaps, gaps[0], rtol=0.02, atol=min(1e-3, 0.02 * gaps[0])):
            return (float(gaps[0]) if not self.places else float(np.mean(gaps)), rows, columns), ()
        return self.spacing, places
