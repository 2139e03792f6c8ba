"""Images that are read when they are needed, for sets larger than memory.

They are indexed like the array [N, H, W, C] that they stand for. A batch fetches its distinct images with a few threads
and keeps the latest ones; what comes out depends on neither.
"""

from __future__ import annotations

import collections
import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from PIL import Image

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
        """One image [H, W, C], or several [n, H, W, C]: by a number, a slice, numbers, or a boolean for each image."""
        if isinstance(index, (int, np.integer)):
            return self._padded(self._read(self._indices[index]))
        chosen = range(len(self))[index] if isinstance(index, slice) else self._numbers(index)
        return np.stack([self[int(i)] for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), np.float32)

    def _numbers(self, index: Sequence[int] | np.ndarray) -> list[int]:
        """The numbers of images that an index of an array stands for."""
        found = np.asarray(index)
        if found.dtype == bool and found.shape == (len(self),):
            return np.flatnonzero(found).tolist()
        if found.size and (found.dtype.kind not in "iu" or found.ndim != 1):
            raise IndexError(f"images are indexed by whole numbers, or by {len(self)} booleans, not by {index!r:.60}")
        return found.astype(int).tolist()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Reads all of it."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def select(self, indices: Sequence[int]) -> Self:
        """The images at `indices`, in that order; nothing is read."""
        view = copy.copy(self)
        view._look_at([self._indices[index] for index in self._numbers(indices)], self._margin)
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
    """Images of several sizes: a draw of training crops each anywhere, an index gives the crop in its middle.

    With a range of scales a draw first reduces the image by a factor f, uniform over the range but at least what leaves
    a crop: the crop is H / f x W / f pixels of the image, anywhere, resampled to H x W.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        shape: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        memory: int = CACHE_BYTES,
        scales: tuple[float, float] | None = None,
    ) -> None:
        """Makes a set.

        Args:
          read: index -> float32 [h, w, C], whole; may be called from several threads.
          shape: (N, H, W, C) of the crops.
          sizes: (h, w) of each image, at least (H, W).
          memory: bytes; all images are kept if they need no more, else the latest.
          scales: smallest and largest factor of a draw, at most 1; None for 1.
        """
        bytes_of = [4 * h * w * shape[-1] for h, w in sizes]
        kept = None if sum(bytes_of) <= memory else max(1, CACHE_BYTES // max(bytes_of))
        super().__init__(functools.lru_cache(maxsize=kept)(_frozen(read)), shape, cached=True)
        self._sizes, self._scales = tuple(sizes), scales

    def centred(self) -> StreamedImages:
        """The crops in the middle as a set of one size, margins included."""
        return StreamedImages(lambda index: self[index], self.shape, cached=True)

    def draw(self, rng: np.random.Generator, indices: np.ndarray) -> Callable[[int, int, int, int, int], np.ndarray]:
        """One crop of each of the images at `indices`, its corner uniform over the places that the image has.

        Returns:
          (number of the draw, top, left, rows, columns of a part of the padded crop) -> that part, [rows, columns, C].
        """
        _, height, width, channels = self._set_shape
        sizes = np.asarray([self._sizes[self._indices[int(i)]] for i in indices])
        factors = np.ones(len(sizes))
        if self._scales is not None:
            low = np.maximum(self._scales[0], (np.asarray((height, width)) / sizes).max(axis=1))
            factors = low + rng.random(len(sizes)) * (np.maximum(self._scales[1], low) - low)
        taken = np.asarray((height, width)) / factors[:, None]
        room = sizes - taken + (self._scales is None)  # whole pixels unless it is resampled
        corners = rng.random(room.shape) * room
        corners = corners.astype(int) if self._scales is None else corners
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
                if self._scales is None:
                    found[inside] = image[dy + y0 : dy + y1, dx + x0 : dx + x1]
                else:
                    f = factors[number]
                    box = (dx + x0 / f, dy + y0 / f, dx + x1 / f, dy + y1 / f)
                    found[inside] = resampled(image, (y1 - y0, x1 - x0), box)
            return found

        return part

    def _padded(self, image: np.ndarray) -> np.ndarray:
        _, height, width, _ = self._set_shape
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return super()._padded(image[top : top + height, left : left + width])


def resampled(values: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """The box (left, upper, right, lower) of an image [h, w, C] as [H, W, C], by Pillow's antialiased bilinear filter.

    Pixels around the box count where the filter reaches them, so that a part of it is what it is in the whole.
    """
    height, width, channels = values.shape
    reach = math.ceil(max(1, (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0])) + 1
    left, upper = max(math.floor(box[0]) - reach, 0), max(math.floor(box[1]) - reach, 0)
    near = values[upper : math.ceil(box[3]) + reach, left : math.ceil(box[2]) + reach]
    box = (box[0] - left, box[1] - upper, min(box[2], width) - left, min(box[3], height) - upper)
    planes = (Image.fromarray(np.ascontiguousarray(near[..., c])) for c in range(channels))
    return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BILINEAR, box)) for p in planes], -1)


def _frozen(read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The cache hands out the same array again: nobody may write into it."""

    def frozen(index: int) -> np.ndarray:
        image = read(index)
        image.flags.writeable = False
        return image

    return frozen
