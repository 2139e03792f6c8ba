"""Which files a path stands for: a file, a folder, a folder of folders or a glob, and `::NAME` for an array in a file.

A group is one volume: one file of slices, or a folder's pictures or DICOM slices. Order is that of the names, numbers
in them by their value. Links are followed; pipes, devices and sockets are not opened, because reading them may not end.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from padis_jax.errors import UserError
from padis_jax.files import base_name

SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".mat": "mat",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
# Images that are not read: one among others that are would be missed by nobody.
OTHERS = (".bmp", ".gif", ".webp", ".jp2", ".jxl", ".heic", ".avif", ".nrrd", ".mha", ".mhd", ".mnc", ".img", ".gipl")
SERIES = ("picture", "dicom")  # kinds whose files are one slice each


class Group(NamedTuple):
    """Files of one volume, their kind (a value of SUFFIXES) and the volume's name."""

    kind: str
    files: tuple[Path, ...]
    name: str


def locate(path: str | Path) -> tuple[list[Group], str | None, list[str]]:
    """(volumes, name of the wanted array or None, notes).

    Args:
      path: FILE, FOLDER or GLOB, and optionally `::NAME` of an array in a .npz, .mat or .hdf5 file.

    Raises:
      UserError: if nothing is there, or nothing of a known kind, or files of several kinds are mixed.
    """
    text, _, variable = (str(path), "", "") if os.path.exists(path) else str(path).partition("::")
    notes: list[str] = []
    found = [text] if os.path.exists(text) else _matching(text)
    matches = [Path(name) for name in _in_order(found, text, notes)]
    if not matches:
        raise UserError(f"{text}: no such file or folder; check the path")
    for match in matches:
        if not match.is_file() and not match.is_dir():
            raise UserError(f"{match}: is neither a file nor a folder, but a pipe, a device or a link to nothing")
    files = [match for match in matches if match.is_file()]
    folders = [match for match in matches if match.is_dir()]
    if files:
        for file in files:
            if kind_of(file) is None:
                known = ", ".join(SUFFIXES)
                suffix = file.suffix or "(no suffix)"
                raise UserError(f"{file}: images of type {suffix!r} are not supported; give {known} or a folder")
        groups = _grouped(files, text if len(files) > 1 else files[0].name)
        if folders:
            notes.append(f"{text}: matches files and folders; only the files are read")
    else:
        groups = [group for folder in folders for group in _in_folder(folder, notes)]
        if not groups:
            raise UserError(
                f"{text}: no images in this folder; it should hold files of type {', '.join(SUFFIXES)}, or folders of "
                "them"
            )
    if variable and {group.kind for group in groups} - {"npz", "mat", "hdf5", "nifti"}:
        raise UserError(
            f"{text}: ::{variable} names an array in a .npz, .mat or .hdf5 file, or a volume of a NIfTI series, which "
            "this is not"
        )
    return groups, variable or None, notes


def _matching(pattern: str) -> list[str]:
    """What a glob matches; brackets are part of a name where there is such a name, and a zero byte of none."""
    if "\0" in pattern:
        return []
    ends = [i for i, c in enumerate(pattern) if c == "/" and os.path.exists(pattern[:i])]
    folder = pattern[: ends[-1]] if ends else ""
    below = glob.escape(folder) + pattern[len(folder) :]
    tried = (glob.glob(text, recursive=True) for text in (below, pattern.replace("[", "[[]"), pattern))
    return next(filter(None, tried), [])


def kind_of(file: Path) -> str | None:
    """The kind of a file by its suffix, or "dicom" by its contents, or None; also for what is no file (a pipe)."""
    if not file.is_file():
        return None
    name = file.name.lower()
    for suffix in (".nii.gz", file.suffix.lower()):
        if name.endswith(suffix) and suffix in SUFFIXES:
            return SUFFIXES[suffix]
    try:
        with open(file, "rb") as handle:
            start = handle.read(132)
    except OSError:
        return None
    return "dicom" if start[128:] == b"DICM" and file.name.upper() != "DICOMDIR" else None


def _in_folder(folder: Path, notes: list[str]) -> list[Group]:
    """The volumes of a folder: its own files, or if it has none, those of the folders below."""
    groups: list[Group] = []
    visited: set[str] = set()
    for where, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        if (real := os.path.realpath(where)) in visited:
            below[:] = []
            notes.append(f"{where}: a link to a folder that is read already; it is ignored")
            continue
        visited.add(real)
        below[:] = _in_order((name for name in below if not name.startswith(".")), where, notes)
        files = [Path(where) / name for name in names if not name.startswith(".")]
        special = [file for file in files if not file.is_file() and (file.suffix.lower() in SUFFIXES or file.exists())]
        if special:
            more = f" and {len(special) - 1} more" if len(special) > 1 else ""
            notes.append(f"{special[0]}{more}: no file, but a pipe, a device or a link to nothing; ignored")
        closed = [file for file in files if file.is_file() and not os.access(file, os.R_OK)]
        if unknown := [file for file in closed if kind_of(file) is None]:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            notes.append(f"{unknown[0]}{more}: may not be read, so whether it is DICOM is not known; ignored")
        if others := [file for file in files if file.suffix.lower() in OTHERS and kind_of(file) is None]:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            notes.append(f"{min(others)}{more}: images of a type that is not read; ignored")
        known = [file for file in files if kind_of(file) is not None]
        if known:
            known = [Path(name) for name in _in_order(map(str, known), where, notes)]
            groups += _grouped(known, str(base_name(folder) / Path(where).relative_to(folder)))
            if Path(where) == folder:
                if below:
                    notes.append(f"{folder}: the folders in it ({', '.join(below[:3])}) are ignored")
                break
    return groups


def _in_order(names: Iterable[str], place: str, notes: list[str]) -> list[str]:
    """The names with numbers in them by value (2 before 10), and a note where the order of the characters differs."""

    def by_value(name: str) -> list[str | int]:
        return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]

    plain = sorted(names)
    found = sorted(plain, key=by_value)
    if found != plain and kind_of(Path(found[0])) != "dicom":  # which are sorted by their positions
        first, second = next((one, other) for one, other in zip(found, plain, strict=True) if one != other)
        order = f"{Path(first).name} before {Path(second).name}"
        notes.append(f"{place}: numbers in the names are not padded with zeros; they are read by value, {order}")
    return found


def _unreadable(error: OSError) -> None:
    raise UserError(
        f"{error.filename}: the folder cannot be read ({error.strerror}); change its permissions"
    ) from error


def _grouped(files: Sequence[Path], name: str) -> list[Group]:
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(str(kind_of(file)), []).append(file)
    if len(kinds) > 1:
        found = " and ".join(f"{len(of_kind)} {kind} ({of_kind[0].name})" for kind, of_kind in kinds.items())
        folder = files[0].parent
        raise UserError(f"{folder}: holds files of several kinds: {found}; name one kind, for example {folder}/*.png")
    kind, found_files = next(iter(kinds.items()))
    if kind not in SERIES:
        return [Group(kind, (file,), file.name if file.name == name else f"{name}/{file.name}") for file in found_files]
    return [Group(kind, tuple(found_files), name)]


def unique(groups: Iterable[Group]) -> list[Group]:
    """The groups with names of their own: a number is added to those that are taken."""
    taken: dict[str, int] = {}
    named = []
    for group in groups:
        count = taken.get(group.name, 0)
        taken[group.name] = count + 1
        named.append(group if not count else group._replace(name=f"{group.name} ({count + 1})"))
    return named
