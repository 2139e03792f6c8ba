"""Atomic writing: a file is complete or absent, and a failed write leaves the older file of that name as it was; logs.

The bytes go to a temporary file in the same folder, are flushed to the disk, and take the final name in one rename. An
object in a bucket (gs://, s3://) is written whole, which buckets do atomically.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from etils import epath

from padis_jax.errors import UserError, reason

BUCKETS = {"gs": "gcsfs", "s3": "s3fs"}  # scheme: what epath needs to reach it


def place(path: str | Path) -> Path:
    """A path on the disk, or in a bucket: pathlib's Path, or epath's, which has the same methods.

    Raises:
      UserError: for the address of anything else.
    """
    if not in_bucket(path):
        return Path(path)
    if (scheme := str(path).partition("://")[0]) not in BUCKETS:
        raise UserError(
            f"{path}: {scheme}:// cannot be written to; give a folder, or a path in a bucket (gs://, s3://)"
        )
    return cast(Path, epath.Path(path))


def in_bucket(path: str | Path) -> bool:
    """Whether `path` is an address with a scheme."""
    return "://" in str(path)


def check_bucket(path: str | Path) -> None:
    """Does nothing for a folder on the disk.

    Raises:
      UserError: if it is a bucket that cannot be reached.
    """
    if not in_bucket(path):
        return
    try:
        place(path).exists()
    except UserError:
        raise
    except Exception as error:  # whatever a client library raises
        need = BUCKETS[str(path).partition("://")[0]]
        raise UserError(
            f"{path}: the bucket cannot be reached ({reason(error)}); pip install {need}, check the address and your "
            "credentials, or give a folder"
        ) from error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes `path` when the block ends without an exception.

    Args:
      path: the final name; missing folders are made, a symbolic link is followed.

    Raises:
      UserError: if the file cannot be written (full disk, no permission, a folder of that name, or what `refuse_detour`
        refuses); nothing changes then.
    """
    if in_bucket(path):
        content = io.BytesIO()
        yield content
        try:
            place(path).write_bytes(content.getvalue())
        except Exception as error:  # whatever a client library raises
            raise UserError(f"{path}: could not be written ({reason(error)})") from error
        return
    refuse_detour(path)
    final = resolved(path)
    _nearest(path, final.parent)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, final)
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error.strerror or error}); an earlier file of that name is unchanged, "
            "make room or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def resolved(path: str | Path) -> Path:
    """The path without links.

    Raises:
      UserError: for links in a circle, and what is no path.
    """
    try:
        return Path(path).resolve()
    except ValueError as error:  # zero bytes
        raise UserError(f"{path}: is no path ({error}); choose another") from error
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: is a link that leads back to itself; remove it, or choose another folder") from error


def base_name(path: str | Path) -> str:
    """The last part of a path; of `.` and `..` that of the folder they lead to."""
    name = Path(path).name
    return name if name not in ("", "..") else resolved(path).name


def refuse_detour(path: str | Path) -> None:
    """Refuses `..` after a folder that is missing: once that is made, the path names another file than was looked at.

    Raises:
      UserError: naming the folder.
    """
    parts = Path(path).parts
    for index, part in enumerate(parts):
        if part == ".." and not (missing := Path(*parts[:index])).exists():
            raise UserError(f"{path}: leads through {missing}, which does not exist; name it without the way back")


def check_writable(folder: str | Path) -> None:
    """Refuses a folder that nothing can be written to, before any long work; nothing is left there.

    Raises:
      UserError: if the folder, or where it is missing the nearest one above it, takes no file or is one; what
        `refuse_detour` refuses. Buckets are not looked at.
    """
    if in_bucket(folder):
        return
    refuse_detour(folder)
    there = _nearest(folder, resolved(folder))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror or error}); choose another folder") from error


def _nearest(path: str | Path, folder: Path) -> Path:
    """The folder, or where it is missing the nearest one above it; UserError, of `path`, if that is a file."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
    except OSError as error:  # a name that is too long
        raise UserError(f"{path}: cannot be written to ({error.strerror or error}); choose another folder") from error
    if not there.is_dir():
        named = "" if there == resolved(path) else f"{there} "
        raise UserError(f"{path}: {named}is a file, not a folder; move it, or choose another folder")
    return there


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path`, atomically."""
    with replacing(path) as handle:
        handle.write(data)


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON that every reader takes, in ASCII.

    Args:
      value: nested mappings, sequences, frozen dataclasses, arrays and scalars (numpy's and JAX's too), paths. JSON has
        no infinity and no NaN: they become null.
      **options: of json.dumps.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `json_text(value)`, indented, to a file, atomically."""
    write_bytes(path, (json_text(value, indent=2) + "\n").encode())


def write_npy(path: str | Path, array: Any) -> None:
    """Writes one array (numpy's or JAX's) as .npy, atomically."""
    with replacing(path) as handle:
        np.save(handle, np.asarray(array), allow_pickle=False)


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays as a compressed .npz, atomically."""
    with replacing(path) as handle:
        np.savez_compressed(handle, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})


def check_file(path: str | Path) -> None:
    """Does nothing for a file, nor for what is not there; opening anything else (a pipe) may not end.

    Raises:
      UserError: for a folder, a pipe or a device.
    """
    if not in_bucket(path) and Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path}: is no file, but a folder, a pipe or a device")


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: str | Path, most: int | None = None) -> str:
    """The text of a file, UTF-8, without the mark that editors on Windows put in front of it.

    Args:
      path: on the disk or in a bucket.
      most: bytes.

    Raises:
      UserError: for a folder, a pipe, a device, or more bytes.
      OSError, UnicodeDecodeError: if it cannot be read.
    """
    check_file(path)
    file = place(path)
    if most is not None and file.stat().st_size > most:
        raise UserError(f"{path}: more than {most} bytes; is this the right file?")
    return file.read_text("utf-8-sig")


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that was cut off, by a run that was stopped as it wrote, is passed over.

    Raises:
      UserError: if the file cannot be read, or another line is no JSON.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the log cannot be read: {error}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, or numbers and nesting beyond what Python takes
            if number == len(lines):
                break
            raise UserError(f"{path}: line {number} is not JSON ({error}); remove it") from error
        if isinstance(record, dict):
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    """`value` in the types that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
