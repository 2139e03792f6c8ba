"""Published sets of photographs by the folders that they come in: what is trained on, validated on and tested on.

    bsds500   images/train (200 pictures), images/val (100), images/test (200), each 481 x 321 or 321 x 481
              Arbelaez et al., IEEE TPAMI 33, 898, 2011
    bsd100    BSDS300: images/train (200) and images/test (100, which is BSD100), of the same sizes; or those 100 alone
              Martin et al., ICCV 2001
    div2k     DIV2K_train_HR (800) and DIV2K_valid_HR (100), 2040 pixels on the longer side
              Agustsson and Timofte, CVPR workshops 2017

The test pictures of DIV2K are not public: what validates is tested on, too, as is usual. BSDS500 trains and validates
on the 300 pictures of BSDS300, so BSD100 is images/val there. A folder with other folders or other counts is refused:
its figures would be those of another set.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from padis_jax.config import DataConfig
from padis_jax.errors import UserError
from padis_jax.images.locate import locate

SIDES = [321, 481]  # of the Berkeley sets, lying or upright
CROP = (256, 256)  # pixels, unless the settings name another size


class Layout(NamedTuple):
    """Where a set has its pictures.

    Attributes:
      title: its name as published.
      pattern: of the folders of pictures, or of the folder that holds them.
      below: where the pattern may lie below the folder that is named.
      counts: volume -> number of pictures, all that there are.
      validation: the volumes of `counts` that validate.
      test: the volume that is tested on.
      alone: whether a folder of the test pictures alone can be tested on.
    """

    title: str
    pattern: str
    below: tuple[str, ...]
    counts: dict[str, int]
    validation: tuple[str, ...]
    test: str
    alone: bool = False

    def expected(self) -> str:
        """The folders in words."""
        folders = ", ".join(f"{name} ({count} pictures)" for name, count in self.counts.items())
        within = ", ".join(f"{below}/" for below in self.below if below)
        return f"{folders}, in it or in its {within}"


LAYOUTS = {
    "bsd100": Layout(
        "BSD100", "images", ("", "BSDS300"), {"images/train": 200, "images/test": 100}, (), "images/test", alone=True
    ),
    "bsds500": Layout(
        "BSDS500",
        "images",
        ("", "data", "BSDS500/data", "BSR/BSDS500/data"),
        {"images/train": 200, "images/val": 100, "images/test": 200},
        ("images/val",),
        "images/test",
    ),
    "div2k": Layout(
        "DIV2K",
        "DIV2K_[tv][ra]*_HR",  # DIV2K_train_HR and DIV2K_valid_HR, whatever else is beside them
        ("", "DIV2K"),
        {"DIV2K_train_HR": 800, "DIV2K_valid_HR": 100},
        ("DIV2K_valid_HR",),
        "DIV2K_valid_HR",
    ),
}


def split_name(path: str) -> tuple[str, str]:
    """`bsds500:DIR` -> ("bsds500", "DIR"); ("", path) for a path without the name of a layout."""
    name, colon, folder = path.partition(":")
    named = bool(colon) and name in LAYOUTS and not Path(path).exists()
    return (name, folder) if named else ("", path)


def pictures_of(name: str, folder: str) -> tuple[str, str]:
    """Of a layout: (the path that `read_images` takes, the volume in it that is tested on).

    Args:
      name: in `LAYOUTS`.
      folder: that holds the set.

    Raises:
      UserError: for a folder that is not laid out so.
    """
    layout = LAYOUTS[name]
    if layout.alone and folder:
        whole = _counts(folder)
        if list(whole.values()) == [layout.counts[layout.test]] and _sized(folder):
            return folder, next(iter(whole))
    return _path(name, folder), layout.test


def located(data: DataConfig) -> DataConfig:
    """The settings with the folders of their layout named: path, held-out volumes, and crops of `CROP` if no size is.

    Args:
      data: of a training; returned as it is where it names no layout, so that this can be done twice.

    Raises:
      UserError: for a folder that is not laid out so, and for slices that are held out beside those of the layout.
    """
    if not data.layout:
        return data
    layout = LAYOUTS[data.layout]
    tested = () if layout.test in layout.validation else (layout.test,)
    held_out: dict[str, Any] = {
        "test": (),
        "validation": (),
        "test_volumes": tested,
        "validation_volumes": layout.validation,
    }
    for field, own in held_out.items():
        if getattr(data, field) not in ((), own):  # its own: of a run that is resumed by the same flags
            raise UserError(f"data.{field}: data.layout {data.layout} says what is held out; leave one of the two out")
    crop = data.crop if data.crop or data.resize else CROP
    return dataclasses.replace(data, layout="", path=_path(data.layout, data.path), crop=crop, **held_out)


def _path(name: str, folder: str) -> str:
    """Where the layout's pattern lies."""
    layout, closest = LAYOUTS[name], ""
    if folder and _counts(folder) == layout.counts:  # of a run that is resumed
        return folder
    for below in layout.below if folder else ():
        path = str(Path(folder, below, layout.pattern))
        found = _counts(path)
        if found == layout.counts:
            return path
        closest = closest or ", ".join(f"{volume} ({count})" for volume, count in found.items())
    raise UserError(
        f"{folder or 'an empty path'}: is not laid out as {layout.title}: expected {layout.expected()}; found "
        f"{closest or 'none of them'}; name the folder that holds the whole set, or leave {name} out"
    )


def _sized(path: str) -> bool:
    """Whether all pictures have the sides of the Berkeley sets."""
    try:
        for file in locate(path)[0][0].files:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if sorted(image.size) != SIDES:
                    return False
    except OSError:
        return False
    return True


def _counts(path: str) -> dict[str, int]:
    """Volume -> number of files, of pictures; nothing where nothing can be read."""
    try:
        return {group.name: len(group.files) for group in locate(path)[0] if group.kind == "picture"}
    except UserError:
        return {}
