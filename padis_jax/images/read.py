"""Reading: a path to images in [0, 1], whatever the format. docs/formats.md has a how-to for each."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from padis_jax.errors import check_path, printable
from padis_jax.images.arrays import open_npy, open_npz
from padis_jax.images.dicom import open_dicom
from padis_jax.images.hdf5 import open_hdf5
from padis_jax.images.image_set import ImageSet
from padis_jax.images.limit import max_memory
from padis_jax.images.locate import kind_of, locate, unique
from padis_jax.images.matlab import open_mat
from padis_jax.images.nifti import open_nifti
from padis_jax.images.pictures import open_pictures
from padis_jax.images.shaping import Shaping, shaped
from padis_jax.images.source import Source, clipping, join
from padis_jax.streamed import CroppedImages, StreamedImages, in_parallel
from padis_jax.window import PLAIN, Window

MEMORY = 2**31  # bytes of float32 images that are held in memory

_OPENERS: dict[str, Callable[[Sequence[Path], str | None], Source]] = {
    "npy": lambda files, variable: open_npy(files[0]),
    "npz": lambda files, variable: open_npz(files[0], variable),
    "mat": lambda files, variable: open_mat(files[0], variable),
    "hdf5": lambda files, variable: open_hdf5(files[0], variable),
    "nifti": lambda files, variable: open_nifti(files[0], variable),
    "picture": lambda files, variable: open_pictures(files),
    "dicom": lambda files, variable: open_dicom(files),
}


def open_source(path: str | Path, shaping: Shaping = Shaping()) -> Source:  # noqa: B008 (frozen)
    """The slices behind a path, in the files' own values; headers are read, the values are not.

    Args:
      path: FILE, FOLDER or GLOB, with `::NAME` for an array in a .npz, .mat or .hdf5 file, `::T` for a volume of a
        NIfTI series.
      shaping: what is done to the images, so that those of several sizes fit.

    Raises:
      UserError: one line which names the file, what is wrong with it, and the remedy.
    """
    check_path("the path of images", path)
    groups, variable, notes = locate(path)
    groups = unique(groups)
    if shaping:  # every picture has a size of its own
        parts = [((f,) for f in g.files) if g.kind == "picture" else (g.files,) for g in groups]
        groups = [g._replace(files=files) for g, of_group in zip(groups, parts, strict=True) for files in of_group]
    sources = []
    for group in groups:
        with warnings.catch_warnings():  # decoders warn of what is repaired or refused
            warnings.simplefilter("ignore")
            source = _OPENERS[group.kind](group.files, variable)
        origins = tuple(
            origin._replace(volume=printable("/".join(filter(None, (group.name, origin.volume)))))
            for origin in source.origins
        )
        source = dataclasses.replace(source, origins=origins, names=tuple(map(printable, source.names)))
        sources.append(shaped(source, shaping))
    joined = join(sources, str(path), shaping.crop)
    return dataclasses.replace(joined, notes=tuple(map(printable, (*notes, *joined.notes))))


def read_images(
    path: str | Path,
    *,
    window: Window | None = None,
    fit: Window | None = None,
    memory: int = MEMORY,
    shaping: Shaping = Shaping(),  # noqa: B008 (frozen)
) -> ImageSet:
    """Reads DICOM, NIfTI, pictures, arrays, MATLAB and HDF5 files.

    >>> import padis_jax as pj
    >>> images = pj.read_images("data/head_ct.npz", memory=0)  # read when they are indexed
    >>> images.images.shape, images.window.unit, images.names[41]
    ((108, 256, 256, 1), 'HU', 'slice 41')

    Args:
      path: FILE, FOLDER or GLOB, with `::NAME` for an array in a .npz, .mat or .hdf5 file. Folder: its files in the
        order of their names (DICOM: by position), or, if it has none of a known kind, those of the folders below, a
        volume each. All must have one size.
      window: the stored values that become 0 and 1, whatever the file says.
      fit: a window to take where the file's values are in its unit, or in a unit that the file does not tell. That of
        the weights is given here. Without either: -1000..1000 HU for values in HU; the full range for pictures and
        bytes; other floats must lie in [0, 1] already, and other integers are refused.
      memory: bytes; a set that would take more as float32 is read as it is needed. 0: every set is.
      shaping: what is done to the images, so that those of several sizes fit one frame (for training).

    Returns:
      An ImageSet; its values do not depend on `memory`. What the window clips is among the notes of a set in memory.

    Raises:
      UserError: one line which names the file, what is wrong with it, and the remedy.
    """
    source = open_source(path, shaping)
    stored, reported = source.windows(window, fit)
    strict = stored == PLAIN and window is None

    def scaled(index: int) -> np.ndarray:
        return source.scaled(index, stored, strict=strict)

    def outside(values: np.ndarray) -> int:
        return int(np.count_nonzero((values < stored.low) | (values > stored.high)))

    def clipped(index: int) -> list[str]:
        values = source.read(index)
        return clipping(f"{source.origins[index].file}: {source.names[index]}", outside(values), values.size, stored)

    images: np.ndarray | StreamedImages
    notes, memory = source.notes, min(memory, max_memory())
    if stored != reported and kind_of(source.origins[0].file) != "picture":
        inside = f"values of {stored.low:g} to {stored.high:g} are read as {reported.low:g} to {reported.high:g}"
        notes = (*notes, f"{source.path}: {inside}, in which results are given, but for NIfTI's")
    if source.sizes:
        images = CroppedImages(scaled, source.shape, source.sizes, memory, shaping.scales)
    elif 4 * math.prod(source.shape) > memory:
        images = StreamedImages(scaled, source.shape)
    else:
        array, counts = np.empty(source.shape, np.float32), np.zeros(source.shape[0], np.int64)

        def fill(index: int) -> None:
            values = source.read(index)
            array[index] = source.converted(index, values, stored, strict=strict)
            counts[index] = outside(values)

        in_parallel(fill, range(len(array)), workers=source.workers)
        images, notes = array, (*notes, *clipping(source.path, int(counts.sum()), array.size, stored))
    return ImageSet(
        images,
        source.names,
        reported,
        source.spacing,
        source.origins,
        rows_up=source.rows_up,
        notes=notes,
        stored=stored,
        clipped=clipped,
        places=source.places,
        mixed=source.mixed,
    )
