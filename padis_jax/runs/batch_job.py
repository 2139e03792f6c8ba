"""Many measurements of one scanner: a folder of files in, a folder of images and a manifest out.

What a file holds is known to the function that reads it (cli/batch.py). Items are done in batches of a fixed size, so
that one program serves all, split over the devices of the process; several processes take turns.

manifest.jsonl has a line per item: {"item", "status": "done" or "failed", "reason" or "residual", ...}. What is done is
kept when the job is started again, and what failed is tried again. A failed item does not stop the others.
"""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import read_records, write_bytes, write_json, write_npz
from padis_jax.images.arrays import check_array, header
from padis_jax.images.guard import decoding
from padis_jax.runs.case import Case

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError)


class Item(NamedTuple):
    """One measurement: its case, and what its line in the manifest says besides."""

    case: Case
    about: Mapping[str, Any] = MappingProxyType({})


Read = Callable[[Path], Item]
Solve = Callable[[Sequence[int], Sequence[Item]], tuple[np.ndarray, np.ndarray]]


def list_items(folder: str | Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The measurements of a folder in the order of their names: {item: file}.

    An item is called by its file without suffix, or with it where two files differ in nothing else.

    Raises:
      UserError: if there is no such folder, or no such file in it.
    """
    known = {suffix.lower() for suffix in suffixes}
    found = sorted(p for p in Path(folder).glob("*") if p.suffix.lower() in known and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no such folder, or no measurements in it ({', '.join(sorted(known))})")
    count = collections.Counter(p.stem for p in found)
    return {p.stem if count[p.stem] == 1 else p.name: p for p in found}


def read_sinogram(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """Reads `sinogram` and, if there is one, `noise_sigma` from a .npz file.

    Raises:
      UserError: if it cannot be read, has another shape, or is not finite; names file and field.
    """
    with decoding(path, ".npz of arrays"), open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
        about = {name: header(archive.zip, name) for name in ("sinogram", "noise_sigma") if name in archive}
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
        held = {name: archive[name] for name in about}
    sinogram, noise = held["sinogram"], held.get("noise_sigma", np.zeros(()))
    if noise.shape != () or noise.dtype.kind not in "fiu" or not 0 <= noise < np.inf:
        raise UserError(f"{path}: `noise_sigma` is {noise}: expected one number, not negative")
    if not np.isfinite(sinogram).all():
        raise UserError(f"{path}: `sinogram` has values that are NaN or infinite; repair or remove them")
    return sinogram.astype(np.float32), float(noise)


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
      solve: (numbers of the items among all, `batch` items) -> images [batch, H, W, C], residuals [batch]; the
        numbers make random keys that do not depend on the batches.
      about: settings, fit for JSON; a job is only resumed with the same.
      batch: items at a time; the last batch is filled up with copies.
      report: called with every new line of the manifest.

    Returns:
      Counts: "done" and "failed" now, "kept" from before.

    Raises:
      UserError: for results of other settings in `workdir`.
    """
    names, paths = list(items), list(items.values())
    about = json.loads(json.dumps(about))
    _same_settings(workdir, about)
    before = _finished(workdir)
    mine = range(jax.process_index(), len(paths), jax.process_count())
    records = [before[names[i]] for i in mine if names[i] in before]
    counts = {"done": 0, "failed": 0, "kept": len(records)}
    due = [i for i in mine if names[i] not in before]

    def note(record: dict[str, Any]) -> None:
        records.append(record)
        counts[record["status"]] += 1
        lines = sorted(records, key=lambda r: str(r["item"]))
        write_bytes(_manifest(workdir), "".join(json.dumps(r) + "\n" for r in lines).encode())
        report(record)

    waiting: list[tuple[int, Item]] = []
    for position, index in enumerate(due):
        try:
            waiting.append((index, read(paths[index])))
        except UserError as error:
            note({"item": names[index], "status": "failed", "reason": str(error)})
        if waiting and (len(waiting) == batch or position == len(due) - 1):
            _solve_and_write(waiting, names, workdir, solve, batch, note)
            waiting = []
    return counts


def _solve_and_write(
    waiting: list[tuple[int, Item]],
    names: Sequence[str],
    workdir: Path,
    solve: Solve,
    batch: int,
    note: Callable[[dict[str, Any]], None],
) -> None:
    filled = waiting + waiting[-1:] * (batch - len(waiting))
    begin = time.perf_counter()
    images, residuals = solve([index for index, _ in filled], [item for _, item in filled])
    seconds = (time.perf_counter() - begin) / len(waiting)
    for (index, item), image, residual in zip(waiting, images, residuals, strict=False):
        name, about = names[index], dict(item.about)
        if not np.isfinite(image).all():
            reason = "diverged: its image is not finite; lower --solver.zeta or raise --solver.consistency"
            note({"item": name, "status": "failed", "reason": reason} | about)
            continue
        write_npz(workdir / f"{name}.npz", {"image": np.asarray(image, np.float32)})
        note({"item": name, "status": "done", "residual": float(residual), "seconds": seconds} | about)


def _manifest(workdir: Path) -> Path:
    number = f"_{jax.process_index():04d}" if jax.process_count() > 1 else ""
    return workdir / f"manifest{number}.jsonl"


def _finished(workdir: Path) -> dict[str, dict[str, Any]]:
    """What the manifests call done, and is there."""
    records = [r for path in sorted(workdir.glob("manifest*.jsonl")) for r in read_records(path)]
    return {
        str(r["item"]): r for r in records if r.get("status") == "done" and (workdir / f"{r['item']}.npz").is_file()
    }


def _same_settings(workdir: Path, about: dict[str, Any]) -> None:
    path = workdir / "job.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except _UNREADABLE as error:
            raise UserError(f"{path}: not readable ({error}); choose another --workdir") from error
        changed = sorted(k for k in {*found, *about} if found.get(k) != about.get(k))
        if changed:
            raise UserError(f"{workdir} has results of other settings ({', '.join(changed)}); choose another --workdir")
    elif jax.process_index() == 0:
        write_json(path, about)


def stacked(items: Sequence[Item]) -> jax.Array:
    """The measurements of a batch, [n, views, bins, 1]."""
    return jnp.stack([item.case.measurement.y for item in items])
