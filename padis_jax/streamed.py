"""Images that are read when they are needed, for sets larger than memory.

They are indexed like the array [N, H, W, C] that they stand for. A batch fetches its distinct images with a few threads
and keeps the latest ones; what comes out depends on neither.
"""

from __future__ import annotations

import collections
import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np

WORKERS = 4
CACHE_BYTES = 2**28


def in_parallel(task: Callable[[int], object], indices: Iterable[int], workers: int = WORKERS) -> None:
    """Runs `task` on every index with a few threads; of several failures, the first in order is raised."""
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:  # decoders warn of what is repaired or refused
        warnings.simplefilter("ignore")
        collections.deque(pool.map(task, indices), maxlen=0)


class StreamedImages:
    """float32 [N, H, W, C] in [0, 1], read on demand; immutable.

    Attributes:
      shape: (N, H, W, C), margins included.
      dtype: float32.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        shape: Sequence[int],
        *,
        indices: Sequence[int] | None = None,
        margin: tuple[int, int] = (0, 0),
        cached: bool = False,
    ) -> None:
        """Makes a view of a set.

        Args:
          read: index in the set -> float32 [H, W, C]; may be called from several threads.
          shape: (N, H, W, C) of the set.
          indices: the images of the view, in order; all by default.
          margin: zeros added above and below, and left and right.
          cached: whether `read` keeps what it has read already.
        """
        count, height, width, channels = shape
        if not cached:
            read = functools.lru_cache(maxsize=max(1, CACHE_BYTES // (4 * height * width * channels)))(_frozen(read))
        self._read, self._set_shape = read, (count, height, width, channels)
        self.dtype = np.dtype(np.float32)
        self._look_at(range(count) if indices is None else indices, margin)

    def _look_at(self, indices: Sequence[int], margin: tuple[int, int]) -> None:
        _, height, width, channels = self._set_shape
        self._indices, self._margin = tuple(indices), margin
        self.shape = (len(self._indices), height + 2 * margin[0], width + 2 * margin[1], channels)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int]) -> np.ndarray:
        """One image [H, W, C], or several [n, H, W, C]."""
        if isinstance(index, (int, np.integer)):
            return self._padded(self._read(self._indices[index]))
        chosen = range(len(self))[index] if isinstance(index, slice) else index
        return np.stack([self[int(i)] for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), np.float32)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Reads all of it."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def select(self, indices: Sequence[int]) -> Self:
        """The images at `indices`, in that order; nothing is read."""
        view = copy.copy(self)
        view._look_at([self._indices[index] for index in indices], self._margin)
        return view

    def padded(self, margin: tuple[int, int]) -> Self:
        """The images with zeros around: `margin` rows above and below, and columns left and right."""
        view = copy.copy(self)
        view._look_at(self._indices, (self._margin[0] + margin[0], self._margin[1] + margin[1]))
        return view

    def fetch(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        """index -> image [H, W, C], the distinct ones of `indices`, read in parallel."""
        distinct = sorted({int(index) for index in indices})
        found: dict[int, np.ndarray] = {}
        in_parallel(lambda index: found.__setitem__(index, self[index]), distinct)
        return found

    def _padded(self, image: np.ndarray) -> np.ndarray:
        if self._margin == (0, 0):
            return image
        my, mx = self._margin
        return np.pad(image, ((my, my), (mx, mx), (0, 0)))


class CroppedImages(StreamedImages):
    """Images of several sizes: a draw of training crops each anywhere, an index gives the crop in its middle."""

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        shape: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        memory: int = CACHE_BYTES,
    ) -> None:
        """Makes a set.

        Args:
          read: index -> float32 [h, w, C], whole; may be called from several threads.
          shape: (N, H, W, C) of the crops.
          sizes: (h, w) of each image, at least (H, W).
          memory: bytes; all images are kept if they need no more, else the latest.
        """
        bytes_of = [4 * h * w * shape[-1] for h, w in sizes]
        kept = None if sum(bytes_of) <= memory else max(1, CACHE_BYTES // max(bytes_of))
        super().__init__(functools.lru_cache(maxsize=kept)(_frozen(read)), shape, cached=True)
        self._sizes = tuple(sizes)

    def centred(self) -> StreamedImages:
        """The crops in the middle as a set of one size, margins included."""
        return StreamedImages(lambda index: self[index], self.shape, cached=True)

    def draw(self, rng: np.random.Generator, indices: np.ndarray) -> Callable[[int, int, int, int, int], np.ndarray]:
        """One crop of each of the images at `indices`, its corner uniform over the places that the image has.

        Returns:
          (number of the draw, top, left, rows, columns of a part of the padded crop) -> that part, [rows, columns, C].
        """
        _, height, width, channels = self._set_shape
        room = np.asarray([self._sizes[self._indices[int(i)]] for i in indices]) - (height, width) + 1
        corners = (rng.random(room.shape) * room).astype(int)
        whole: dict[int, np.ndarray] = {}
        in_parallel(lambda i: whole.__setitem__(i, self._read(self._indices[i])), sorted({int(i) for i in indices}))
        my, mx = self._margin

        def part(number: int, top: int, left: int, rows: int, columns: int) -> np.ndarray:
            found = np.zeros((rows, columns, channels), np.float32)
            (dy, dx), image = corners[number], whole[int(indices[number])]
            y0, x0 = max(top - my, 0), max(left - mx, 0)
            y1, x1 = min(top + rows - my, height), min(left + columns - mx, width)
            if y0 < y1 and x0 < x1:
                inside = slice(y0 + my - top, y1 + my - top), slice(x0 + mx - left, x1 + mx - left)
                found[inside] = image[dy + y0 : dy + y1, dx + x0 : dx + x1]
            return found

        return part

    def _padded(self, image: np.ndarray) -> np.ndarray:
        _, height, width, _ = self._set_shape
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return super()._padded(image[top : top + height, left : left + width])


def _frozen(read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The cache hands out the same array again: nobody may write into it."""

    def frozen(index: int) -> np.ndarray:
        image = read(index)
        image.flags.writeable = False
        return image

    return frozen
