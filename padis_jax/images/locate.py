"""Which files a path stands for: a file, a folder, a folder of folders or a glob, and `::NAME` for an array in a file.

A group is one volume: one file of slices, or a folder's pictures or DICOM slices. Order is that of the names.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from padis_jax.errors import UserError

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
    text, _, variable = str(path).partition("::")
    named = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
    matches = [Path(found) for found in named]
    if not matches:
        raise UserError(f"{text}: no such file or folder; check the path")
    files = [match for match in matches if match.is_file()]
    folders = [match for match in matches if match.is_dir()]
    notes: list[str] = []
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


def kind_of(file: Path) -> str | None:
    """The kind of a file by its suffix, or "dicom" by its contents, or None."""
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
    for where, below, names in os.walk(folder, onerror=_unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = [Path(where) / name for name in sorted(names) if not name.startswith(".")]
        known = [file for file in files if kind_of(file) is not None]
        if known:
            groups += _grouped(known, str(Path(where).relative_to(folder.parent)))
            if Path(where) == folder:
                if below:
                    notes.append(f"{folder}: the folders in it ({', '.join(below[:3])}) are ignored")
                break
    return groups


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
