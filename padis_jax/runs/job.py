"""A resumable job: items in, a file for each and a manifest out; a killed one is finished by the same command.

manifest.jsonl has a line per item: {"item", "status": "done" or "failed", "reason" or what the solver says, ...}. What
is done is kept when the job is started again, as long as measurement, result and line have the digests in the line, and
what failed is tried again. A failed item does not stop the others. The settings are in job.json, and results of others
are refused.

The number of an item, which its random key is folded from, is its own, as that of a slice, or made of its name: the
first 31 bits of the SHA-256 of the name. So a new file does not change the others. Jobs begun before there was this
rule, whose job.json has no "numbers", are finished by the places of the items in the folder.
"""

from __future__ import annotations

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

import padis_jax
from padis_jax.errors import UserError, cut, printable
from padis_jax.files import json_text, read_records, read_text, write_bytes, write_json, write_npz
from padis_jax.lock import Lock
from padis_jax.runs.case import Case
from padis_jax.runs.config import Experiment
from padis_jax.solvers.presets import Plan
from padis_jax.weights import Weights, file_hash

DIGESTS = ("measurement_sha256", "output_sha256", "line_sha256")  # of a line, which no result shows
RULE = "first 31 bits of the SHA-256 of the item's name"


def settings_of(config: Experiment, plan: Plan, weights: Weights, free: Collection[str]) -> dict[str, Any]:
    """What every result of a job depends on, for job.json; `free` are the fields that may differ when it is resumed."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in free}
    return {
        "experiment": settings | {"solver": plan.described()},
        "weights_sha256": weights.digest,
        "unit": weights.window.unit,
        "padis_jax": padis_jax.__version__,
    }


class Item(NamedTuple):
    """One measurement: its case, and what its line in the manifest says besides."""

    case: Case
    about: Mapping[str, Any] = MappingProxyType({})


class Entry(NamedTuple):
    """An item that may have been done already.

    Attributes:
      file: name of the file that it comes from.
      digest: of its measurement, read now.
      read: what there is to solve; what it refuses with a UserError is a failed item.
      number: which its random key is folded from; None for that of its name.
    """

    file: str
    digest: Callable[[], str]
    read: Callable[[], Item]
    number: int | None = None


class Done(NamedTuple):
    """What became of an item.

    Attributes:
      arrays: of its file.
      about: of its line in the manifest, fit for JSON.
      reason: why it failed; "" for what is done.
    """

    arrays: Mapping[str, np.ndarray] = MappingProxyType({})
    about: Mapping[str, Any] = MappingProxyType({})
    reason: str = ""


Solve = Callable[[Sequence[int], Sequence[Item]], Sequence[Done]]


def run_job(
    entries: Mapping[str, Entry],
    workdir: Path,
    solve: Solve,
    about: dict[str, Any],
    *,
    batch: int,
    lock: Lock | None = None,
    on_kept: Callable[[int], None] = lambda count: None,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
) -> dict[str, int]:
    """Does what is not done yet.

    Args:
      entries: the items by their names.
      workdir: receives NAME.npz for each, manifest.jsonl and job.json.
      solve: (numbers of the items, at most `batch` items) -> what became of each; the numbers make random keys that do
        not depend on the batches.
      about: settings, fit for JSON; a job is only resumed with the same.
      batch: items at a time.
      lock: of `workdir`, looked at before anything is written.
      on_kept: called with the number of those that are done already, before the others begin.
      report: called with every new line of the manifest.

    Returns:
      Counts: "done" and "failed" now, "kept" from before.

    Raises:
      UserError: for results of other settings in `workdir`, a manifest or job.json that is damaged, and what cannot be
        written.
    """
    names = list(entries)
    rule = same_settings(workdir, json.loads(json.dumps(about)))
    lines = read_manifest(workdir)
    mine = range(jax.process_index(), len(names), jax.process_count())
    others = {
        r["item"]: r for r in lines if r["item"] not in entries and jax.process_index() == 0
    }  # items that have gone, or are not asked for now
    records = list(others.values())
    kept = {i: r for i in mine if (r := _kept(workdir, names[i], entries[names[i]], lines))}
    records += kept.values()
    counts = {"done": 0, "failed": 0, "kept": len(kept)}
    due = [i for i in mine if i not in kept]
    on_kept(len(kept))

    def write() -> None:
        lines = sorted(records, key=lambda r: str(r["item"]))
        write_bytes(_manifest(workdir), "".join(json_text(r) + "\n" for r in lines).encode())

    def note(record: dict[str, Any]) -> None:
        record |= {"line_sha256": _seal(record)}
        records.append(record)
        counts[record["status"]] += 1
        write()
        report(record)

    if not due and len(records) < len(lines) and jax.process_count() == 1:
        write()  # without lines that are damaged, or of the same item

    waiting: list[_Waiting] = []
    for position, index in enumerate(due):
        name, entry = names[index], entries[names[index]]
        line = {"item": name, "file": entry.file}
        number = entry.number if entry.number is not None else _number(name) if rule else index
        try:
            line["measurement_sha256"] = entry.digest()
            waiting.append(_Waiting(number, line, entry.read()))
        except (UserError, OSError) as error:
            note(line | {"status": "failed", "reason": str(error)})
        if waiting and (len(waiting) == batch or position == len(due) - 1):
            _solve_and_write(waiting, workdir, solve, lock, note)
            waiting = []
    return counts


class _Waiting(NamedTuple):
    number: int
    about: dict[str, str]
    item: Item


def _solve_and_write(
    waiting: list[_Waiting], workdir: Path, solve: Solve, lock: Lock | None, note: Callable[[dict[str, Any]], None]
) -> None:
    begin = time.perf_counter()
    found = solve([w.number for w in waiting], [w.item for w in waiting])
    if lock is not None:
        lock.check()
    seconds = (time.perf_counter() - begin) / len(waiting)
    for (_, named, item), done in zip(waiting, found, strict=True):
        line: dict[str, Any] = named | dict(item.about)
        if done.reason:
            note(line | {"status": "failed", "reason": done.reason})
            continue
        output = workdir / f"{named['item']}.npz"
        write_npz(output, {name: np.asarray(array, np.float32) for name, array in done.arrays.items()})
        line |= {"status": "done", **done.about, "seconds": seconds}
        note(line | {"output_sha256": file_hash(output)})


def _seal(record: Mapping[str, Any]) -> str:
    """Digest of a line, but for itself."""
    text = json_text({name: value for name, value in record.items() if name != "line_sha256"})
    return hashlib.sha256(text.encode()).hexdigest()


def _number(name: str) -> int:
    """The first 31 bits of the SHA-256 of a name."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:4], "big") >> 1


def _manifest(workdir: Path) -> Path:
    number = f"_{jax.process_index():04d}" if jax.process_count() > 1 else ""
    return workdir / f"manifest{number}.jsonl"


def read_manifest(workdir: Path) -> list[dict[str, Any]]:
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


def _kept(workdir: Path, name: str, entry: Entry, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The line of an item that is done: its measurement is the same, and its image is there as it was written."""
    done = [r for r in lines if r["item"] == name and r["status"] == "done"]
    output = workdir / f"{name}.npz"
    if not done or not output.is_file():
        return None
    try:
        found = {"measurement_sha256": entry.digest(), "output_sha256": file_hash(output)}
    except (OSError, UserError):
        return None
    for record in done:
        if "output_sha256" not in record:  # of a version without digests
            if zipfile.is_zipfile(output):
                return record
        elif all(record.get(field) == digest for field, digest in (found | {"line_sha256": _seal(record)}).items()):
            return record
    return None


def check_job(workdir: Path, about: dict[str, Any]) -> None:
    """Raises UserError for what `run_job` refuses before its work; nothing is written."""
    same_settings(workdir, json.loads(json.dumps(about)), write=False)
    read_manifest(workdir)


def same_settings(workdir: Path, about: dict[str, Any], *, write: bool = True) -> bool:
    """Writes job.json, or compares with the one that is there. Returns whether numbers are made of names."""
    path = workdir / "job.json"
    if not path.exists():
        if write and jax.process_index() == 0:
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
    if changed := [name for name in _differing(known, about) if name != "numbers"]:
        what = cut(printable(", ".join(changed)), 100)
        raise UserError(f"{workdir} has results of other settings ({what}); choose another --workdir")
    return "numbers" in found


def _differing(found: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The names of the settings that differ, with dots."""
    names = []
    for name in sorted({*found, *now}):
        before, after = found.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            names += _differing(before, after, f"{prefix}{name}.")
        elif before != after:
            names.append(f"{prefix}{name}")
    return names


def _completed(found: Any, now: Any, defaults: Any) -> Any:
    """The settings of a job, with those that did not exist when it was begun at their defaults."""
    if not (isinstance(found, dict) and isinstance(now, dict) and isinstance(defaults, dict)):
        return found
    return {k: _completed(found.get(k, defaults.get(k)), now.get(k), defaults.get(k)) for k in {*found, *now}}
