"""Many measurements of one scanner: a folder of files in, a folder of images and a manifest out.

What a file holds is known to the function that reads it (cli/batch.py). Items are done in batches of a fixed size, so
that one program serves all, split over the devices of the process; several processes take turns.

manifest.jsonl has a line per item: {"item", "status": "done" or "failed", "reason" or "residual", ...}. What is done is
kept when the job is started again, as long as measurement and image have the digests of their line, and what failed is
tried again. A failed item does not stop the others.

The number of an item, which its random key is folded from, is made of its name: the first 31 bits of the SHA-256 of the
name. So a new file does not change the others. Jobs begun before there was this rule, whose job.json has no "numbers",
are finished by the places of the items in the folder.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from padis_jax.errors import UserError, cut, printable
from padis_jax.files import check_file, json_text, read_records, read_text, write_bytes, write_json, write_npz
from padis_jax.images.arrays import check_array, header
from padis_jax.images.guard import decoding
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.solvers.checks import checked_noise
from padis_jax.weights import file_hash

RULE = "first 31 bits of the SHA-256 of the item's name"


class Item(NamedTuple):
    """One measurement: its case, and what its line in the manifest says besides."""

    case: Case
    about: Mapping[str, Any] = MappingProxyType({})


Read = Callable[[Path], Item]
Solve = Callable[[Sequence[int], Sequence[Item]], tuple[np.ndarray, np.ndarray]]


def list_items(folder: str | Path, suffixes: Collection[str], workdir: Path | None = None) -> dict[str, Path]:
    """The measurements of a folder in the order of their names: {item: file}.

    An item is called by its file without suffix, or with it where another file has that name too; but one that the
    manifest in `workdir` names keeps its name, whatever files are new.

    Raises:
      UserError: if there is no such folder, or no such file in it, or the manifest is damaged.
    """
    known = {suffix.lower() for suffix in suffixes}
    files = (p for p in Path(folder).glob("*") if p.suffix.lower() in known and not p.name.startswith("."))
    found = sorted(p for p in files if p.is_file())  # reading a pipe may not end
    if not found:
        raise UserError(f"{folder}: no such folder, or no measurements in it ({', '.join(sorted(known))})")
    count = collections.Counter(name for p in found for name in {p.stem, p.name})
    named = {(r["item"], r.get("file")) for r in (_records(workdir) if workdir else ())}
    return {p.stem if count[p.stem] == 1 or (p.stem, p.name) in named else p.name: p for p in found}


def read_sinogram(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Reads `sinogram` and what there is of its noise from a .npz file: `noise_sigma`, or `noise_std` of every entry.

    Returns:
      The sinogram, and the standard deviation of its noise, [] or [views, bins].

    Raises:
      UserError: if it cannot be read, has another shape, or is not finite; names file and field.
    """
    held = _held(path, shape)
    sinogram, noise = held["sinogram"], held.get("noise_std", held.get("noise_sigma", np.zeros(())))
    if "noise_std" not in held and (noise.dtype.kind not in "fiu" or not 0 <= noise < np.inf):
        raise UserError(f"{path}: `noise_sigma` is {noise}: expected one number, not negative")
    try:
        checked_noise(noise, shape, None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not np.isfinite(sinogram).all():
        raise UserError(f"{path}: `sinogram` has values that are NaN or infinite; repair or remove them")
    return sinogram.astype(np.float32), noise.astype(np.float32)


def check_sinogram(path: Path, shape: tuple[int, ...]) -> None:
    """Raises UserError for what the headers of a file tell `read_sinogram` to refuse."""
    _held(path, shape, values=False)


def _held(path: Path, shape: tuple[int, ...], *, values: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a file by their names, after checks of their headers; none without `values`."""
    check_file(path)
    with decoding(path, ".npz of arrays"), open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
        fields = ("sinogram", "noise_sigma", "noise_std")
        about = {name: header(archive.zip, name) for name in fields if name in archive}
        if "sinogram" not in about:
            raise UserError(f"{path}: has no `sinogram`")
        found, dtype = about["sinogram"]
        if found != shape or dtype.kind not in "fiu":
            raise UserError(
                f"{path}: `sinogram` has shape {found} and type {dtype}, but the scan has numbers {shape} [views, "
                "bins]; set --scan.views and --scan.bins"
            )
        for name, (size, kind) in about.items():
            check_array(path, name, size, kind)
            if name == "noise_sigma" and size != ():
                raise UserError(f"{path}: `noise_sigma` has shape {size}: expected one number, not negative")
            if name == "noise_std" and (size != shape or kind.kind not in "fiu"):
                raise UserError(f"{path}: `noise_std` has shape {size} and type {kind}: expected numbers {shape}")
        if len(about) > 2:
            raise UserError(f"{path}: has `noise_sigma` and `noise_std`: leave one of them out")
        return {name: archive[name] for name in about} if values else {}


def run(
    items: Mapping[str, Path],
    workdir: Path,
    read: Read,
    solve: Solve,
    about: dict[str, Any],
    *,
    batch: int,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, int]:
    """Does what is not done yet.

    Args:
      items: from `list_items`.
      workdir: receives NAME.npz with `image` [H, W, C] for each, manifest.jsonl and job.json.
      read: a file; what it refuses with a UserError is a failed item. All sinograms have one shape.
      solve: (numbers of the items, `batch` items) -> images [batch, H, W, C], residuals [batch]; the numbers, 31 bits
        each, make random keys that do not depend on the batches.
      about: settings, fit for JSON; a job is only resumed with the same.
      batch: items at a time; the last batch is filled up with copies.
      report: called with every new line of the manifest.

    Returns:
      Counts: "done" and "failed" now, "kept" from before.

    Raises:
      UserError: for results of other settings in `workdir`, and a manifest or job.json that is damaged.
    """
    names, paths = list(items), list(items.values())
    rule = _same_settings(workdir, json.loads(json.dumps(about)))
    numbers = [_number(name) for name in names] if rule else list(range(len(names)))
    lines = _records(workdir)
    mine = range(jax.process_index(), len(paths), jax.process_count())
    others = {
        r["item"]: r for r in lines if r["item"] not in items and jax.process_index() == 0
    }  # files that have gone
    records = list(others.values())
    kept = {i: r for i in mine if (r := _kept(workdir, names[i], paths[i], lines))}
    records += kept.values()
    counts = {"done": 0, "failed": 0, "kept": len(kept)}
    due = [i for i in mine if i not in kept]

    def note(record: dict[str, Any]) -> None:
        records.append(record)
        counts[record["status"]] += 1
        lines = sorted(records, key=lambda r: str(r["item"]))
        write_bytes(_manifest(workdir), "".join(json_text(r) + "\n" for r in lines).encode())
        report(record)

    waiting: list[_Waiting] = []
    for position, index in enumerate(due):
        about_file = {"item": names[index], "file": paths[index].name}
        try:
            about_file["measurement_sha256"] = file_hash(paths[index])
            waiting.append(_Waiting(numbers[index], about_file, read(paths[index])))
        except (UserError, OSError) as error:
            note(about_file | {"status": "failed", "reason": str(error)})
        if waiting and (len(waiting) == batch or position == len(due) - 1):
            _solve_and_write(waiting, workdir, solve, batch, note)
            waiting = []
    return counts


class _Waiting(NamedTuple):
    number: int
    about: dict[str, str]
    item: Item


def _solve_and_write(
    waiting: list[_Waiting], workdir: Path, solve: Solve, batch: int, note: Callable[[dict[str, Any]], None]
) -> None:
    filled = waiting + waiting[-1:] * (batch - len(waiting))
    begin = time.perf_counter()
    images, residuals = solve([w.number for w in filled], [w.item for w in filled])
    seconds = (time.perf_counter() - begin) / len(waiting)
    for (_, named, item), image, residual in zip(waiting, images, residuals, strict=False):
        line: dict[str, Any] = named | dict(item.about)
        if not np.isfinite(image).all():
            reason = "diverged: its image is not finite; lower --solver.zeta or raise --solver.consistency"
            note(line | {"status": "failed", "reason": reason})
            continue
        output = workdir / f"{named['item']}.npz"
        write_npz(output, {"image": np.asarray(image, np.float32)})
        line |= {"status": "done", "residual": float(residual), "seconds": seconds}
        note(line | {"output_sha256": file_hash(output)})


def _number(name: str) -> int:
    """The first 31 bits of the SHA-256 of a name."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:4], "big") >> 1


def _manifest(workdir: Path) -> Path:
    number = f"_{jax.process_index():04d}" if jax.process_count() > 1 else ""
    return workdir / f"manifest{number}.jsonl"


def _records(workdir: Path) -> list[dict[str, Any]]:
    """The lines of all manifests.

    Raises:
      UserError: for one that is damaged.
    """
    found = []
    for path in sorted(workdir.glob("manifest*.jsonl")):
        for record in read_records(path):
            texts = all(isinstance(text, str) for text in (record.get("item"), record.get("file", "")))
            if not texts or record.get("status") not in ("done", "failed"):
                raise UserError(
                    f"{path}: a line names no item, or neither done nor failed: {json.dumps(record)[:80]}; remove it, "
                    "and rerun the same command"
                )
            found.append(record)
    return found


def _kept(workdir: Path, name: str, measurement: Path, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The line of an item that is done: its measurement is the same, and its image is there as it was written."""
    done = [r for r in lines if r["item"] == name and r["status"] == "done"]
    output = workdir / f"{name}.npz"
    if not done or not output.is_file():
        return None
    try:
        found = {"measurement_sha256": file_hash(measurement), "output_sha256": file_hash(output)}
    except OSError:
        return None
    for record in done:
        if "output_sha256" not in record:  # of a version without digests
            if zipfile.is_zipfile(output):
                return record
        elif all(record.get(field) == digest for field, digest in found.items()):
            return record
    return None


def _same_settings(workdir: Path, about: dict[str, Any]) -> bool:
    """Writes job.json, or compares with the one that is there. Returns whether numbers are made of names."""
    path = workdir / "job.json"
    if not path.exists():
        if jax.process_index() == 0:
            write_json(path, about | {"numbers": RULE})
        return True
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable ({error}); choose another --workdir") from error
    if not isinstance(found, dict) or found.get("numbers", RULE) != RULE:
        raise UserError(f"{path}: holds no settings of a job, or those of a later version; choose another --workdir")
    defaults = json.loads(json_text(dataclasses.asdict(Experiment())))
    known = found | {"experiment": _completed(found.get("experiment"), about.get("experiment"), defaults)}
    changed = sorted(k for k in {*known, *about} - {"numbers"} if known.get(k) != about.get(k))
    if changed:
        what = cut(printable(", ".join(changed)), 100)
        raise UserError(f"{workdir} has results of other settings ({what}); choose another --workdir")
    return "numbers" in found


def _completed(found: Any, now: Any, defaults: Any) -> Any:
    """The settings of a job, with those that did not exist when it was begun at their defaults."""
    if not (isinstance(found, dict) and isinstance(now, dict) and isinstance(defaults, dict)):
        return found
    return {k: _completed(found.get(k, defaults.get(k)), now.get(k), defaults.get(k)) for k in {*found, *now}}
