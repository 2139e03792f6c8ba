"""Images that are read when they are needed, for sets larger than memory.

They are indexed like the array [N, H, W, C] that they stand for. A batch fetches its distinct images with a few threads
and keeps the latest ones; what comes out depends on neither.
"""

from __future__ import annotations

import collections
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

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
        self._read, self._set_shape, self._margin = read, (count, height, width, channels), margin
        self._indices = tuple(range(count) if indices is None else indices)
        self.shape = (len(self._indices), height + 2 * margin[0], width + 2 * margin[1], channels)
        self.dtype = np.dtype(np.float32)

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

    def select(self, indices: Sequence[int]) -> StreamedImages:
        """The images at `indices`, in that order; nothing is read."""
        chosen = [self._indices[index] for index in indices]
        return StreamedImages(self._read, self._set_shape, indices=chosen, margin=self._margin, cached=True)

    def padded(self, margin: tuple[int, int]) -> StreamedImages:
        """The images with zeros around: `margin` rows above and below, and columns left and right."""
        both = (self._margin[0] + margin[0], self._margin[1] + margin[1])
        return StreamedImages(self._read, self._set_shape, indices=self._indices, margin=both, cached=True)

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


def _frozen(read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The cache hands out the same array again: nobody may write into it."""

    def frozen(index: int) -> np.ndarray:
        image = read(index)
        image.flags.writeable = False
        return image

    return frozen
