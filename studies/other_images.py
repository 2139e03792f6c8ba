"""The images of `studies.other_data`: twelve each of photographs, a brain in MRI and the head CT, 256 x 256 pixels.

photographs   two crops, from both ends of the longer side, of each of six pictures that no prior here has seen:
              four of `studies.photos`' folder, reduced by 2, and scikit-image's astronaut and chelsea, in colour
grey          the same, 0.299 R + 0.587 G + 0.114 B
brain         every tenth axial slice, 40 to 150, of a T1 volume (Colin27), zeros around, turned as the head CT is
head          the four test slices of the head CT and their neighbours two slices away, which training left out
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from padis_jax.benchmark.data import Pictures
from padis_jax.benchmark.photos import SCENES, SIDE, TEST, photograph, reduced
from padis_jax.errors import UserError
from padis_jax.images import PLAIN, Window, read_images
from padis_jax.split import HEAD_CT, HEAD_CT_TEST

LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)
BRAIN_SLICES = tuple(range(40, 160, 10))
BRAIN_WINDOW = Window("1", 0.0, 254.0)
NEIGHBOURS = (-2, 0, 2)  # within the gap of three that training leaves around a test slice


class Images(NamedTuple):
    """Images of a set, and of each the picture or place that it is a part of, which intervals resample."""

    pictures: Pictures
    groups: tuple[str, ...]


def photographs(folder: str, *, grey: bool = False) -> Images:
    """Of the six pictures.

    Raises:
      UserError: for a folder without them, and without scikit-image.
    """
    found, names, groups = [], [], []
    for name in (*SCENES, *TEST):
        for number, crop in enumerate(two_crops(photograph(name) if name in TEST else reduced(Path(folder), name))):
            found.append(crop.astype(np.float32) / 255)
            groups.append(name.split(".")[0])
            names.append(f"{groups[-1]}_{number}")
    array = np.stack(found)
    array = (array @ LUMA)[..., None] if grey else array
    return _images("grey photographs" if grey else "photographs", array, names, groups)


def brain(path: str) -> Images:
    """Slices of the volume, which must be of at most 256 x 256 pixels."""
    volume = read_images(path, window=BRAIN_WINDOW, memory=0)
    found = [in_middle(np.asarray(volume.images[[k]], np.float32)[0][::-1]) for k in BRAIN_SLICES]
    names = [f"slice_{k}" for k in BRAIN_SLICES]
    return _images("brain, T1", np.stack(found), names, names)


def head(path: str = HEAD_CT) -> Images:
    """Slices that training left out."""
    slices = [(test, test + step) for test in HEAD_CT_TEST for step in NEIGHBOURS]
    volume = read_images(path, memory=0)
    array = np.asarray(volume.images[[k for _, k in slices]], np.float32)
    names, groups = [f"slice_{k}" for _, k in slices], [f"slice_{test}" for test, _ in slices]
    return _images("head CT", array, names, groups, volume.window)


def two_crops(image: np.ndarray) -> list[np.ndarray]:
    """Crops of 256 x 256 from both ends of the longer side of [H, W, C], in the middle of the other."""
    room = [n - SIDE for n in image.shape[:2]]
    if min(room) < 0:
        raise UserError(f"a picture of {image.shape[:2]} pixels: at least {SIDE} x {SIDE} are needed")
    wide = room[1] >= room[0]
    corners = [(room[0] // 2, end) if wide else (end, room[1] // 2) for end in (0, room[1] if wide else room[0])]
    return [image[top : top + SIDE, left : left + SIDE] for top, left in corners]


def in_middle(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] of at most 256 x 256 pixels with zeros around."""
    room = [SIDE - n for n in image.shape[:2]]
    if min(room) < 0:
        raise UserError(f"a slice of {image.shape[:2]} pixels: at most {SIDE} x {SIDE} are taken here")
    return np.pad(image, (*((n // 2, n - n // 2) for n in room), (0, 0)))


def _images(title: str, array: np.ndarray, names: list[str], groups: list[str], window: Window = PLAIN) -> Images:
    pictures = Pictures(title, array, tuple(names), tuple(range(len(names))), window, total=len(names))
    return Images(pictures, tuple(groups))
