"""The weights that come with the program, by name: `load_prior("photos")`, `--weights head_ct`.

A name stands for one file, by its SHA-256. Small ones of free data are in the package (priors/), the others in the
folder weights/ of a checkout. weights/README.md has the card of each: its data with authors and licences, how it was
trained, its limits.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from padis_jax.errors import UserError, check_path, quoted
from padis_jax.files import file_hash


class Card(NamedTuple):
    """What a name stands for.

    Attributes:
      about: the images, in a few words.
      licence: on which terms the file is distributed.
      digest: SHA-256 of the file.
    """

    about: str
    licence: str
    digest: str


CARDS = {
    "head_ct": Card(
        "one head in CT, patches",
        "GPL-2.0 (its data's)",
        "54afc521906f1aeea15844ee27d46098cde8e33acda285006d40570edb48f82a",
    ),
    "head_ct_2": Card(
        "the same head, trained for longer, patches",
        "GPL-2.0 (its data's)",
        "1e82808fd21e6522faaf2ffd97f96beb8db6ea5d5f368041629345a175542b55",
    ),
    "head_ct_whole": Card(
        "the same, whole images",
        "GPL-2.0 (its data's)",
        "8e11f8ac09f1dd87a90d97f4e246a893228ee6f34698414af6e6b849036fda86",
    ),
    "photos": Card(
        "photographs under CC0 and CC-BY, any size, patches",
        "Apache-2.0, data: priors/README.md",
        "b54b70c91bfd356aac6dd7c3bca7291b39c9fe32f35a55e7f04f96fac0e01fc6",
    ),
    "photos_all": Card(
        "photographs under free licences, any size, patches",
        "its data's: GPL-2.0+, CC-BY-SA, CC-BY, CC0",
        "8e0162a97d0aaadd63111f3ce7441a7db22962524a817005c46f9027e059fbd2",
    ),
    "photos_two": Card(
        "photographs of two scenes, patches",
        "Apache-2.0, data: weights/README.md",
        "c51fcddd998f567cb8b3b560b2d090cd2c6e171ae0f82d5eb07bf2909ac4f80b",
    ),
    "photos_whole": Card(
        "the same two, whole images",
        "Apache-2.0, data: weights/README.md",
        "e33f2a02118644e218cbeaa85511974af2a12bb7a257f9f3ad62832bbc497a4d",
    ),
    "discs": Card(
        "synthetic discs with holes, whole images",
        "Apache-2.0",
        "5ab7601ab6adf1e5c48fbf37930a25a06bff8adacf477aac74707512a5e0ebf9",
    ),
}
OWN = Path(__file__).parent / "priors"  # in the wheel
FOLDERS = (OWN, Path(__file__).parents[1] / "weights", Path("weights"))  # ... of the checkout installed, or here


def is_name(path: str | Path) -> bool:
    """Whether it can only be a name: a word without a folder or a suffix, and no file here is called so."""
    path = Path(path)
    return len(path.parts) == 1 and not path.suffix and not path.exists()


def find(name: str) -> Path | None:
    """The file of a name, unchecked; None where there is none."""
    return next((file for folder in FOLDERS if (file := folder / f"{name}.safetensors").is_file()), None)


def locate(path: str | Path) -> Path:
    """The weights file that a path or a name stands for.

    Raises:
      UserError: for a name that there is not, whose file is not there, or whose file is another.
    """
    check_path("weights", path)
    if not is_name(path):
        return Path(path)
    name = str(path)
    if (card := CARDS.get(name)) is None:
        raise UserError(f"{quoted(name)}: no such weights file, and no name of one; names are {', '.join(CARDS)}")
    if (file := find(name)) is None:
        raise UserError(
            f"{name}: its file weights/{name}.safetensors is not here; run inside a checkout, or name a file"
        )
    if file_hash(file) != card.digest:
        raise UserError(f"{file}: damaged, or not the file that {name} stands for (another SHA-256); restore it from "
                        "the repository, or give its path to use it as it is")  # fmt: skip
    return file
