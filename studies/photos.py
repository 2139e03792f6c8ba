"""Makes the folder of photographs that the colour priors are trained on, from Debian's wallpaper packages.

    apt-get install mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 plasma-workspace-wallpapers
    python -m studies.photos data/photos                         37 pictures (configs/photos_all.py)
    python -m studies.photos data/photos_cc --licences CC0 CC-BY --scikit-image    11 (configs/photos.py)
    python -m studies.photos data/photos --root unpacked         packages unpacked by `dpkg -x` into a folder

Pictures are read from the installed packages and nothing is downloaded. Each is reduced to a short side of 768 pixels
(Lanczos) and saved as JPEG, quality 94, without subsampling of the colours. CREDITS.txt beside them names authors and
licences, as the packages' copyright files have them. --scikit-image adds coffee and rocket, which come with
scikit-image.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from padis_jax.benchmark.photos import image_file
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes
from padis_jax.outputs import claimed

SHORT, QUALITY = 768, 94
MATE, LOMIRI, LOMIRI_20 = "mate-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"
PLASMA = "plasma-workspace-wallpapers"
SCIKIT = "scikit-image"


class Picture(NamedTuple):
    """A photograph: the name of its copy without .jpg, the package and the file in it, author and licence."""

    name: str
    package: str
    file: str
    author: str
    licence: str

    @property
    def place(self) -> str:
        """Of the file, as credits name it."""
        return self.file if self.package == SCIKIT else f"/{self.file}"


def _lomiri(name: str, author: str, licence: str, package: str = LOMIRI) -> Picture:
    return Picture(name, package, f"usr/share/backgrounds/{name}.jpg", author, licence)


def _mate(name: str, author: str) -> Picture:
    return Picture(f"mate_{name}", MATE, f"usr/share/backgrounds/mate/nature/{name}.jpg", author, "GPL-2+")


def _plasma(name: str) -> Picture:
    file = f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg"
    return Picture(name, PLASMA, file, "KDE Visual Design Group", "GPL-2+")


PICTURES = (
    _lomiri("aitzgorri_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("friends_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("life_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("picosdeeuropa_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("sunset_by_Aitzol_Berasategi", "Aitzol Berasategi", "CC-BY-4.0"),
    _lomiri("Picture_0B_by_freespace", 'Trevor "Freespace"', "CC-BY-4.0"),
    _lomiri("Picture_1A_by_freespace", 'Trevor "Freespace"', "CC-BY-4.0"),
    _lomiri("Wine_by_Jakkub_Mede", "Jakub Mede", "CC-BY-4.0"),
    _lomiri("seeding_by_Clements_Engelhardt", "Clemens Engelhardt", "CC0-1.0"),
    _lomiri("Bridge_by_Sander_Klootwijk", "Sander Klootwijk", "CC-BY-SA-4.0"),
    _lomiri("Dragonfly_by_Bolly", '"Bolly"', "CC-BY-SA-4.0"),
    _lomiri("free_by_Peter_Nerlich", "Peter Nerlich", "CC-BY-SA-4.0"),
    _lomiri("greentock_by_Peter_Nerlich", "Peter Nerlich", "CC-BY-SA-4.0"),
    _lomiri("Kleiber_by_Lukas_Baubkus", "Lukas Baubkus", "CC-BY-SA-3.0", LOMIRI_20),
    _mate("Aqua", "Charles Barbin"),
    _mate("Blinds", "Lennart Poettering, Andrea Cimitan"),
    _mate("Dune", "Marco Cogoni, Hylke Bons"),
    _mate("FreshFlower", "Jens Ansorg"),
    _mate("Garden", "Charles Barbin"),
    _mate("GreenMeadow", "Timothy Schellhase, Lapo Calamandrei"),
    _mate("LadyBird", "Charles Barbin"),
    _mate("RainDrops", '"blackcombwhistler07"'),
    _mate("Storm", "Sergey Nazarov"),
    _mate("TwoWings", "Charles Barbin, Hylke Bons"),
    _mate("Wood", "Jean-François Fortin Tam"),
    _mate("YellowFlower", "Charles Barbin"),
    *map(
        _plasma,
        ("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
    ),
    *map(_plasma, ("OneStandsOut", "Path", "summer_1am")),
)

OF_SCIKIT = (
    Picture("coffee", SCIKIT, "coffee.png", "Rachel Michetti", "CC0-1.0"),
    Picture("rocket", SCIKIT, "rocket.jpg", "SpaceX", "public-domain"),
)


def chosen(licences: Sequence[str] | None, *, scikit: bool = False) -> list[Picture]:
    """Debian's pictures under those licences, named without their versions; all for None; scikit-image's on demand."""
    own = [p for p in PICTURES if licences is None or p.licence.rsplit("-", 1)[0] in licences]
    return [*own, *OF_SCIKIT] if scikit else own


def place_of(picture: Picture, root: Path) -> Path:
    """Where its file is installed."""
    return image_file(picture.file) if picture.package == SCIKIT else root / picture.file


def reduced(path: Path) -> bytes:
    """A picture with a short side of at most 768 pixels, as JPEG."""
    with Image.open(path, formats=("JPEG", "PNG")) as image:
        whole = image.convert("RGB")
    scale = min(1.0, SHORT / min(whole.size))
    size = (round(whole.width * scale), round(whole.height * scale))
    target = io.BytesIO()
    whole.resize(size, Image.Resampling.LANCZOS).save(target, "JPEG", quality=QUALITY, subsampling=0)
    return target.getvalue()


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the packages are installed or unpacked")
    known = sorted({p.licence.rsplit("-", 1)[0] for p in PICTURES})
    parser.add_argument("--licences", nargs="+", choices=known, help="leave out pictures under others")
    parser.add_argument("--scikit-image", action="store_true", help="coffee (CC0) and rocket (public domain), too")
    args = parser.parse_args(argv)
    pictures = chosen(args.licences, scikit=args.scikit_image)
    files = {p: place_of(p, args.root) for p in pictures}
    missing = [p for p in pictures if not files[p].is_file()]
    if missing:
        packages = " ".join(sorted({p.package for p in missing}))
        raise UserError(
            f"{files[missing[0]]}: not there, and {len(missing) - 1} more; install their packages (apt-get "
            f"install {packages}), or name with --root the folder that they were unpacked into"
        )
    names = [*(f"{p.name}.jpg" for p in pictures), "CREDITS.txt"]
    with claimed(args.folder, names, [str(file) for file in files.values()], of="photographs"):
        for picture in tqdm(pictures, desc="pictures", unit="picture"):
            write_bytes(args.folder / f"{picture.name}.jpg", reduced(files[picture]))
        lines = (f"{p.name}.jpg: {p.author}, {p.licence} ({p.package}: {p.place})\n" for p in pictures)
        write_bytes(args.folder / "CREDITS.txt", "".join(lines).encode())
    print(f"{args.folder}: {len(pictures)} pictures and CREDITS.txt")


if __name__ == "__main__":
    main()
