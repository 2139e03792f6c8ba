"""The images that methods are compared on: held-out CT slices, and crops of photographs."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np

from padis_jax.benchmark import photos
from padis_jax.errors import UserError
from padis_jax.images import PLAIN, ImageSet, Shaping, Window, read_images
from padis_jax.images.layouts import CROP, LAYOUTS, pictures_of, split_name
from padis_jax.runs.case import SSIM_WINDOW
from padis_jax.split import HEAD_CT_TEST, is_head_ct, slices_of_volumes, spread


class Pictures(NamedTuple):
    """Test images.

    Attributes:
      title: what they are.
      images: float32 [N, H, W, C] in [0, 1].
      names: N names.
      indices: N numbers in the set that they come from.
      window: what 0 and 1 stand for.
      path: what they were read from, "" for pictures that come with a package.
      volumes: (name, number of images) of each volume of the set, in order, where it tells.
      total: images in the set.
    """

    title: str
    images: np.ndarray
    names: tuple[str, ...]
    indices: tuple[int, ...]
    window: Window
    path: str = ""
    volumes: tuple[tuple[str, int], ...] = ()
    total: int = 0

    @property
    def channels(self) -> int:
        """1 or 3."""
        return int(self.images.shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.images.shape[1:]

    @property
    def origin(self) -> Literal["upper", "lower"]:
        """Where row 0 is drawn; CT is stored face down."""
        return "lower" if self.window.unit == "HU" else "upper"

    def digest(self, number: int) -> str:
        """SHA-256 of one image's values."""
        return hashlib.sha256(np.ascontiguousarray(self.images[number], "<f4").tobytes()).hexdigest()


def ct_slices(path: str, count: int, window: Window | None) -> Pictures:
    """Test slices: those of the head CT, 41 first, or `count` of another set, evenly spread (all of it is a test set).

    Args:
      path: file, folder or glob.
      count: how many at most.
      window: the prior's, taken where the file's values are in its unit or tell none.

    Raises:
      UserError: for what cannot be read, or is not grey.
    """
    images = read_images(path, fit=window, memory=0)
    if is_head_ct(path):
        return _pictures(path, images, "head CT", (41, *(i for i in HEAD_CT_TEST if i != 41))[:count], 1)
    return _pictures(path, images, path, spread(len(images.names), count), 1)


def photographs(path: str, count: int) -> Pictures:
    """Colour pictures of a file or folder, evenly spread, or crops of scikit-image's where the path is empty.

    Of `bsd100:DIR` and the other layouts of `images.layouts` the test pictures, each as its central crop of 256 x 256.

    Raises:
      UserError: for what cannot be read, or is not in colour.
    """
    name, folder = split_name(path)
    if name:
        whole, volume = pictures_of(name, folder)
        images = read_images(whole, memory=0, shaping=Shaping(crop=CROP))
        tested = slices_of_volumes(images.volumes, [volume])
        title = f"{LAYOUTS[name].title}, central crops of {CROP[0]} x {CROP[1]} of its {len(tested)} test pictures"
        return _pictures(whole, images, title, tuple(tested[i] for i in spread(len(tested), count)), 3)
    if path:
        images = read_images(path, memory=0)
        return _pictures(path, images, path, spread(len(images.names), count), 3)
    found, names = photos.test_crops()
    scaled = (found[:count] / 255).astype(np.float32)
    return Pictures("photographs", scaled, names[:count], tuple(range(len(scaled))), PLAIN)


def _pictures(path: str, images: ImageSet, title: str, chosen: tuple[int, ...], channels: int) -> Pictures:
    array = np.asarray(images.images[list(chosen)], np.float32)
    if array.shape[-1] != channels:
        kind = "grey" if channels == 1 else "in colour"
        raise UserError(f"{path}: images have {array.shape[-1]} channels; they must be {kind} here")
    if min(array.shape[1:3]) < SSIM_WINDOW:
        raise UserError(f"{path}: {array.shape[1:3]} pixels; at least {SSIM_WINDOW} x {SSIM_WINDOW} are needed")
    names = tuple(images.names[index] for index in chosen)
    volumes = tuple(images.volumes.items())
    return Pictures(title, array, names, tuple(chosen), images.window, path, volumes, len(images.names))
