"""What a command may write: new files and its own earlier results, never an input, never a file of somebody else.

`results.json` in a folder lists what runs have written there, and only that is replaced. The list is written before the
first file of a run, so that a killed run's files are known too.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import padis_jax
from padis_jax.devices.mesh import is_leader
from padis_jax.errors import UserError
from padis_jax.files import check_writable, in_bucket, place, read_text, refuse_detour, resolved, write_json
from padis_jax.lock import Lock, locked

RECORD = "results.json"


def check_outputs(
    folder: str | Path,
    names: Iterable[str],
    inputs: Sequence[str],
    *,
    of: str = "results",
    record: str = RECORD,
    ours: bool = False,
) -> None:
    """To be called before any work.

    Args:
      folder: receives the files; it need not exist.
      names: of the files, within the folder; "NAME/" is a folder whose contents are all the run's.
      inputs: what the run reads: files, folders or globs, with ::NAME or without; "" for none.
      of: what the folder is of: "results" or "training"; the files of one are not the other's.
      record: the list's name.
      ours: the folder is known to hold results of a version that kept no list.

    Raises:
      UserError: if `folder` takes no file or is one of the inputs, or a file to be written is one of them (links and
        hard links too), or is there and no run has written it.
    """
    where, names = place(folder), [*names, record]
    check_writable(folder)
    if not in_bucket(folder):
        for read in filter(None, inputs):
            if mixes(where, names, read):
                raise UserError(f"{read}: is read from, and results would mix with it; choose another --workdir")
        refuse_inputs([where / name for name in names], inputs)
    known = _listed(where / record, of) if not ours or (where / record).exists() else set(names)
    for name in names:
        path = where / name
        folder_in_use = path.is_dir() and any(path.iterdir())
        there = folder_in_use if name.endswith("/") else path.exists()
        own = name in known | {record} and (in_bucket(folder) or name.endswith("/") or _in(where, path, name))
        if there and not own:
            raise UserError(
                f"{path}: is no result of an earlier run ({record} does not list it), and would be lost; move it, or "
                "choose another --workdir"
            )


def mixes(folder: Path, names: Sequence[str], read: str) -> bool:
    """Whether reading `read`, a folder or a glob, again would find the files `names` in `folder`."""
    own = resolved(folder)
    if os.path.isdir(read):
        if own == resolved(read):
            return True
        # Without files of its own it stands for the folders in it.
        below = resolved(read) in own.parents
        return below and not any(p.is_file() for p in Path(read).iterdir() if p.name[0] != ".")
    pattern = resolved(read.partition("::")[0])
    found = (own / (f"{name}x" if name.endswith("/") else name) for name in names)
    return not os.path.exists(read) and any(file.match(str(pattern)) for file in found)


def refuse_inputs(outputs: Sequence[Path], inputs: Iterable[str]) -> None:
    """Refuses to write over a file that is read, by whatever name.

    Args:
      outputs: files to be written, and folders of them.
      inputs: as for `check_outputs`.

    Raises:
      UserError: naming both; what `files.refuse_detour` refuses of the outputs.
    """
    for output in outputs:
        refuse_detour(output)
    within = (file for path in outputs if path.is_dir() for file in path.rglob("*") if file.is_file())
    there = {key: path for path in (*outputs, *within) if (key := _identity(path)) is not None}
    if not there:  # an input exists, so a file that does not is none
        return
    for path in inputs:
        for file in _files(path):
            if (key := _identity(file)) in there:
                raise UserError(
                    f"{there[key]}: is the input {file}, which would be lost; choose another --workdir, or another "
                    "file to write"
                )


@contextlib.contextmanager
def claimed(
    folder: str | Path,
    names: Sequence[str],
    inputs: Sequence[str],
    *,
    of: str = "results",
    record: str = RECORD,
    ours: bool = False,
    lock: bool = True,
) -> Iterator[Lock | None]:
    """Within the block the folder is this run's: checked as by `check_outputs`, locked, and with its list written.

    Raises:
      UserError: for what `check_outputs` and `lock.locked` refuse.
    """
    check_outputs(folder, names, inputs, of=of, record=record, ours=ours)
    with locked(folder, lock=lock) as held:
        if is_leader():
            path = place(folder) / record
            before = _listed(path, of)
            if not before.issuperset({*names, record}):  # else the list is as it would be
                files = sorted(before | {*names, record})
                write_json(path, {"padis_jax": padis_jax.__version__, "of": of, "files": files})
        yield held


def written(folder: str | Path, *, of: str = "results", record: str = RECORD) -> set[str]:
    """The files that the list in a folder names, those of a run that has claimed it too; UserError for another list."""
    return _listed(place(folder) / record, of)


def has_field(path: Path, name: str) -> bool:
    """Whether a JSON file is there and has that field: by it, folders of versions that kept no list are known."""
    try:
        return name in json.loads(read_text(path))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _listed(path: Path, of: str) -> set[str]:
    if not path.exists():
        return set()
    try:
        found = json.loads(read_text(path))
        files, found_of = found["files"], found["of"]
        if isinstance(files, list) and all(isinstance(name, str) for name in (*files, found_of)):
            if found_of == of:
                return set(files)
            raise UserError(f"{path}: lists files of {found_of[:20]!r}, not of {of!r}; choose another --workdir")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{path}: is no list of results of this program; move it, or choose another --workdir")


def _in(folder: Path, path: Path, name: str) -> bool:
    """Whether `path` is the folder's file of that name, and no link to another."""
    return resolved(path) == resolved(folder) / name


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _files(path: str) -> Iterator[Path]:
    """The files that an input stands for."""
    text = path if os.path.exists(path) else path.partition("::")[0]
    for match in [text] if os.path.exists(text) else glob.glob(text, recursive=True):
        yield Path(match)
        seen: set[tuple[int, int] | None] = set()  # links may lead in circles
        for where, below, names in os.walk(match, followlinks=True):
            below[:] = [name for name in below if _identity(Path(where, name)) not in seen]
            seen |= {_identity(Path(where, name)) for name in below}
            yield from (Path(where, name) for name in names)
