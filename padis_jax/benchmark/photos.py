"""Natural colour photographs that come with scikit-image, as crops of 256 x 256 pixels.

    python -m padis_jax.benchmark.photos --out data/photos.npy        crops to train on (configs/photos_two.py)
    python -m padis_jax.benchmark.photos --test data/photos --out data/photos_test.npy

The second makes the eight crops of the benchmark's preset "table": the first four of those that it tests on without
--photos, and the middle of the four test pictures of `studies.photos`' folder, reduced by 2. With --each 2 they are
twelve: of each picture of the folder two crops, side by side about the middle.

astronaut and chelsea (a cat) are tested on and held out whole; rocket is for tuning; coffee and the two views of
motorcycle are trained on. Only files inside the installed package are read, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_npy

SIDE = 256
TEST = ("astronaut.png", "chelsea.png")
VALIDATION = ("rocket.jpg",)
TRAIN = ("coffee.png", "motorcycle_left.png", "motorcycle_right.png")
SCENES = ("ColorfulCups", "EveningGlow", "Kleiber_by_Lukas_Baubkus", "mate_LadyBird")  # of studies.photos, for tests
STEP = 64  # pixels at most between the crops that are trained on


def image_file(name: str) -> Path:
    """Where an installed scikit-image has an example image.

    Raises:
      UserError: if scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the photographs come with scikit-image, which is not installed: pip install scikit-image, or "
            "name your own pictures with --photos FOLDER"
        )
    return Path(found.submodule_search_locations[0]) / "data" / name


def photograph(name: str) -> np.ndarray:
    """One photograph, uint8 [H, W, 3].

    Raises:
      UserError: if scikit-image is not installed, or came without that file.
    """
    path = image_file(name)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(
            f"{path}: this scikit-image came without the photograph: pip install scikit-image, or name your "
            "own pictures with --photos FOLDER"
        ) from error


def crops(image: np.ndarray, *, side: int = SIDE, step: int | None = None) -> np.ndarray:
    """Square crops of an image [H, W, C], row by row: [n, side, side, C].

    Args:
      image: at least `side` pixels on either side.
      side: of a crop.
      step: at most so many pixels from one crop to the next, edge to edge; None for as many as fit without overlap,
        centred.
    """
    rows, columns = (_starts(n, side, step) for n in image.shape[:2])
    return np.stack([image[r : r + side, c : c + side] for r in rows for c in columns])


def test_crops() -> tuple[np.ndarray, tuple[str, ...]]:
    """The crops that are tested on, the first of each photograph first: uint8 [5, 256, 256, 3], and their names."""
    found = [(number, name.split(".")[0], crop) for name in TEST for number, crop in enumerate(crops(photograph(name)))]
    found.sort(key=lambda item: item[0])
    return np.stack([crop for _, _, crop in found]), tuple(f"{name} {number}" for number, name, _ in found)


def reduced(folder: Path, name: str) -> np.ndarray:
    """A picture of `studies.photos`' folder, reduced by 2: uint8 [H, W, 3].

    Raises:
      UserError: if it cannot be read.
    """
    path = folder / f"{name}.jpg"
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB").reduce(2))
    except OSError as error:
        raise UserError(f"{path}: not readable; python -m studies.photos makes the folder") from error


def table_crops(folder: Path, each: int = 1) -> np.ndarray:
    """The crops of the benchmark's preset "table": uint8 [4 + 4 each, 256, 256, 3].

    Args:
      folder: of `studies.photos`.
      each: crops of each of its test pictures, side by side about the middle.

    Raises:
      UserError: for a folder without the test pictures, and as `photograph`.
    """
    found = list(test_crops()[0][:4])
    for name in SCENES:
        small = reduced(folder, name)
        height, width = small.shape[:2]
        if width < each * SIDE or height < SIDE:
            size = f"{SIDE} x {each * SIDE}"
            raise UserError(
                f"{folder / name}.jpg: {(height, width)} pixels after reduction; at least {size} are needed"
            )
        left, top = (width - each * SIDE) // 2, (height - SIDE) // 2
        found += [small[top : top + SIDE, x : x + SIDE] for x in range(left, left + each * SIDE, SIDE)]
    return np.stack(found)


def training_crops() -> tuple[np.ndarray, int]:
    """(uint8 [N, 256, 256, 3], how many of them, at the end, are those of the validation photograph)."""
    train, validation = (
        np.concatenate([crops(photograph(n), step=STEP) for n in names]) for names in (TRAIN, VALIDATION)
    )
    return np.concatenate([train, validation]), len(validation)


def _starts(n: int, side: int, step: int | None) -> np.ndarray:
    if n < side:
        raise ValueError(f"an image of {n} pixels has no crop of {side}: take a larger image")
    if step is None:
        count = n // side
        return (n - count * side) // 2 + side * np.arange(count)
    return np.linspace(0, n - side, -(-(n - side) // step) + 1).round().astype(int)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Writes the crops to train on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/photos.npy"))
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="of studies.photos: crops to test on instead")
    parser.add_argument("--each", type=int, choices=(1, 2), default=1, help="of --test: crops of each of its pictures")
    args = parser.parse_args(argv)
    if args.test:
        found = table_crops(args.test, args.each)
        write_npy(args.out, found)
        print(f"{args.out}: {len(found)} crops of {SIDE} x {SIDE} to test on")
        return
    array, held_out = training_crops()
    write_npy(args.out, array)
    print(f"{args.out}: {len(array)} crops of {SIDE} x {SIDE}, the last {held_out} of them for validation")


if __name__ == "__main__":
    main()
