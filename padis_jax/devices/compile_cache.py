"""Compiled programs, kept between runs by JAX's persistent cache under the user's cache folder.

    ~/.cache/padis_jax/compiled-KEY/      KEY: of the versions of jax and jaxlib, the machine and the CPU's features
        NAME.SHA256                       an entry and the digest of its contents
        run-.../NAME                      of a running program: hard links of the entries, and what it compiles

A compiled program is machine code. So the folder must belong to the user and be closed to all others, or it is not
used; a damaged entry is deleted and compiled again; entries appear whole, when the program that made them ends. Those
that were used least recently go where those of all keys take more than a gigabyte, or are more than 2000.

PADIS_JAX_COMPILE_CACHE names another folder, or "off"; where JAX_COMPILATION_CACHE_DIR is set, JAX's own cache is used
as it is. `off` (--no-compile-cache) turns off both.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
from jax import monitoring

from padis_jax.files import file_hash, write_json

VARIABLE = "PADIS_JAX_COMPILE_CACHE"
LIMIT = 2**30  # bytes
ENTRIES = 2000  # of all keys; each is read at every start
ABANDONED = 7 * 24 * 3600  # seconds after which a program that has not ended is taken for killed
TIMES = "seconds.json"
_folder: list[Path] = []  # in use


class Spent(NamedTuple):
    """Seconds of this process in XLA's compiler or loading what was compiled; how many programs were loaded."""

    seconds: float = 0.0
    loaded: int = 0


_spent = [Spent()]


def use() -> Path | None:
    """Switches the cache on for this process; the folder, or None where it is off.

    It says in one line on stderr why a folder is not used.
    """
    wanted = os.environ.get(VARIABLE, "")
    if _folder:
        return _folder[0]
    if wanted == "off" or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return None
    try:
        base = Path(wanted) if wanted else _home() / "padis_jax"
        folder = base / f"compiled-{_key()}"
        base.parent.mkdir(parents=True, exist_ok=True)
        for path in (base, folder):
            path.mkdir(exist_ok=True, mode=0o700)
            if problem := _problem(path):
                raise OSError(problem)
        for other in _folders(folder):
            _sweep(other)
        staging = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
        for path in _entries(folder):
            _link(path, staging)
    except OSError as error:
        print(f"note: compiled programs are not kept: {error}; {VARIABLE}=off ends this note", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(staging))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a start has a hundred small ones
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # whose settings would hold the folder's name
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")  # what cannot be read is compiled
    atexit.register(keep, folder, staging)
    _folder.append(folder)
    return folder


def off() -> None:
    """No compiled program is read or kept, whatever the environment says."""
    jax.config.update("jax_enable_compilation_cache", False)


def keep(folder: Path, staging: Path) -> None:
    """Moves what was compiled into the folder, deletes what is too much, and ends the use of `staging`."""
    try:
        known = {path.stem for path in _entries(folder)}
        for path in staging.glob("*-cache"):
            if path.name not in known:
                os.replace(path, folder / f"{path.name}.{file_hash(path)}")
            elif path.stat().st_atime > 0:  # read since `_link`
                os.utime(path)
        every = [path for other in _folders(folder) for path in _entries(other)]
        sizes = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in every)
        total = sum(size for _, size, _ in sizes)
        for left, (_, size, path) in zip(range(len(sizes), 0, -1), sizes, strict=True):
            if total <= LIMIT and left <= ENTRIES:
                break
            path.unlink(missing_ok=True)
            total -= size
    except OSError:  # a full disk, or another run that tidied up
        pass
    shutil.rmtree(staging, ignore_errors=True)


def spent() -> Spent:
    """So far."""
    return _spent[0]


def last_seconds(what: str) -> float | None:
    """How long compiling took when it last had to be, by the record of `remember`."""
    try:
        found = json.loads((_folder[0] / TIMES).read_text())[what] if _folder else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(found) if isinstance(found, (int, float)) else None


def remember(what: str, seconds: float) -> None:
    """Notes how long compiling took."""
    if not _folder:
        return
    try:
        before = json.loads((_folder[0] / TIMES).read_text())
    except (OSError, ValueError, RecursionError):
        before = {}
    try:
        write_json(_folder[0] / TIMES, {**(before if isinstance(before, dict) else {}), what: round(seconds, 1)})
    except OSError:
        pass


def _key() -> str:
    about = [jax.__version__, metadata.version("jaxlib"), platform.machine(), platform.system()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    except OSError:
        about.append(platform.processor())
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def _home() -> Path:
    """The user's cache folder; OSError where there is none, as for a user whom the system does not know."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise OSError(f"{error} Set HOME, or {VARIABLE} to a folder") from None


def _folders(folder: Path) -> set[Path]:
    """It, and those of other versions and machines beside it, which share the limit."""
    beside = folder.parent.glob("compiled-*") if folder.name.startswith("compiled-") else ()
    return {folder, *(path for path in beside if path.is_dir() and not path.is_symlink())}


def _problem(folder: Path) -> str:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if found.st_mode & 0o077 and os.name == "posix":
        return f"{folder} is open to other users (mode {stat.S_IMODE(found.st_mode):o}): chmod 700 it"
    return ""


def _sweep(folder: Path) -> None:
    """Deletes what programs that were killed have left; numbers of processes mean nothing to other containers."""
    for path in folder.glob("run-*"):
        if time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*-cache.*") if path.is_file() and not path.is_symlink()]


def _link(path: Path, staging: Path) -> None:
    if file_hash(path) != path.suffix[1:]:
        path.unlink(missing_ok=True)
        return
    os.utime(path, (0, path.stat().st_mtime))
    try:
        os.link(path, staging / path.stem)
    except OSError:  # a file system without links
        shutil.copy2(path, staging / path.stem)


def _on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event.endswith("backend_compile_duration"):
        _spent[0] = _spent[0]._replace(seconds=_spent[0].seconds + duration_secs)


def _on_event(event: str, **kwargs: str | int) -> None:
    if event.endswith("compilation_cache/cache_hits"):
        _spent[0] = _spent[0]._replace(loaded=_spent[0].loaded + 1)


monitoring.register_event_duration_secs_listener(_on_duration)
monitoring.register_event_listener(_on_event)
