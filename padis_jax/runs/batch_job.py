"""Many measurements of one scanner: a folder of files in, a folder of images and a manifest out.

What a file holds is known to the function that reads it (cli/batch.py), and how a job is resumed to `job`. Items are
done in batches of a fixed size, so that one program serves all, split over the devices of the process; several
processes take turns.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from padis_jax.errors import UserError
from padis_jax.files import check_file
from padis_jax.images.arrays import check_array, header
from padis_jax.images.guard import decoding
from padis_jax.lock import Lock
from padis_jax.runs.job import Done, Entry, Item, read_manifest, run_job
from padis_jax.solvers.checks import checked_noise
from padis_jax.weights import file_hash

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
    named = {(r["item"], r.get("file")) for r in (read_manifest(workdir) if workdir else ())}
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


def _held(path: Path, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a file by their names, after checks of their headers."""
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
        return {name: archive[name] for name in about}


def run(
    items: Mapping[str, Path],
    workdir: Path,
    read: Read,
    solve: Solve,
    about: dict[str, Any],
    *,
    batch: int,
    lock: Lock | None = None,
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
      lock: of `workdir`, as in `run_job`.
      report: called with every new line of the manifest.

    Returns:
      As `run_job`.

    Raises:
      UserError: as `run_job`.
    """

    def done(numbers: Sequence[int], waiting: Sequence[Item]) -> list[Done]:
        extra = batch - len(waiting)
        images, residuals = solve([*numbers, *[numbers[-1]] * extra], [*waiting, *[waiting[-1]] * extra])
        return [
            Done({"image": image}, {"residual": float(residual)})
            if np.isfinite(image).all()
            else Done(reason="diverged: its image is not finite; lower --solver.zeta or raise --solver.consistency")
            for image, residual in zip(images[: len(waiting)], residuals, strict=False)
        ]

    entries = {
        name: Entry(path.name, functools.partial(file_hash, path), functools.partial(read, path))
        for name, path in items.items()
    }
    return run_job(entries, workdir, done, about, batch=batch, lock=lock, report=report)
