"""Damaged and hostile files for every reader, disks that are full and folders that cannot be written.

    python tests/fuzz.py [--seed 0] [--only bombs weights]

Each case ends in the right value, where that is known (tests/members), or in one line (UserError). Printed are those
that do not: other values, tracebacks (any other exception, or a message of several lines), hangs, refusals that take
time or memory, half-written outputs (a file that is neither the old nor the new one, or a temporary file that stays)
and chatter (a library printed something of its own). Cases are decided by the seed. They run in this process; some are
repeated by the programs themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch_writer as tw
from members import Member, bombs, cones, jobs, metadata, pictures, scans, slices, special, volumes
from members.damage import crafted, damaged, seeds, write_dicom
from members.judge import attempt, commanded, judged, overheard
from tiny import write_weights

from padis_jax.cli import convert
from padis_jax.files import write_json, write_npy, write_npz
from padis_jax.images import HOUNSFIELD, ImageSet, read_images
from padis_jax.measurements.geometry import ScanGeometry, write_geometry
from padis_jax.runs.html_report import write_report
from padis_jax.writers import result, write_result

ROOT = Path(__file__).parent.parent
FINE = {"value": "right", "right": "right", "refused": "refused"}
DAMAGED = "damaged files"


def reading(folder: Path, cases: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(case, what came of it, message) of every file that is read."""
    good = seeds(folder)
    for name, (_, reader) in good.items():
        outcome, message = attempt(lambda path=folder / name, reader=reader: reader(path))
        if outcome != "value":
            raise RuntimeError(f"the good file {name} was not read: {message}")
    bad = folder / "bad"
    bad.mkdir()
    work = [(f"{name}: {i}", name, data, reader) for i, (name, data, reader) in enumerate(crafted(folder, good))]
    names = list(good)
    for i in range(cases):
        name = names[i % len(names)]
        data, reader = good[name]
        work.append((f"{name}: damage {i}", name, damaged(data, np.random.default_rng([seed, i])), reader))
    for case, name, data, reader in work:
        path = bad / name
        path.write_bytes(data)
        with overheard() as printed:
            outcome, message = attempt(lambda path=path, reader=reader: reader(path))
        if printed.getvalue() and outcome in ("value", "refused"):
            outcome, message = "chatter", printed.getvalue().decode(errors="replace")
        yield case, outcome, message
        path.unlink()
    if (folder / "CANARY").exists() or Path("CANARY").exists():
        yield "canary", "traceback", "a file ran its command"


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def writing(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(case, what came of it, message) of outputs that cannot be finished."""
    from matplotlib.figure import Figure

    from padis_jax.figures import save_figure

    array, target = np.random.default_rng(0).random((64, 64)), folder / "out Ünï 文件 \u202e"
    target.mkdir()
    frame = ["--image-shape", "16", "16", "--patch", "8", "--low", "0", "--high", "1", "--quiet", "--overwrite"]
    with np.load(Path(__file__).parent / "fixtures" / "ddpmpp_small.npz") as file:
        flat = {k.removeprefix("weights/"): file[k] for k in file.files if k.startswith("weights/")}
    source = folder / "network.pkl"
    source.write_bytes(tw.network_pickle(flat))
    geometry = ScanGeometry("parallel", tuple(np.arange(3000.0)), "degrees", 12, 1.0)
    figure = Figure()
    figure.add_subplot().imshow(array)

    def converted(path: Path) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            convert.main([str(source), str(path), *frame])

    scan = ImageSet(array[None, ..., None].astype(np.float32), ("scan",), HOUNSFIELD, spacing=(1.0, 1.0, 1.0))
    made = result(scan.images, scan, "DDS", window=HOUNSFIELD)
    write_dicom(folder / "source.dcm", array)
    series = read_images(folder / "source.dcm")
    derived = result(array[None, ..., None], series, "DDS", window=HOUNSFIELD)

    writers: dict[str, Callable[[Path], object]] = {
        "00001.dcm": lambda p: write_result(p.parent, "dicom", made),
        "derived/00001.dcm": lambda p: write_result(p.parent, "dicom", derived),
        "x.nii.gz": lambda p: write_result(p.parent / "x", "nifti", made),
        "y.nii.gz": lambda p: write_result(p.parent / "y", "nifti", derived),
        "x.png": lambda p: write_result(p.parent / "x", "png", made),
        "x.tif": lambda p: write_result(p.parent / "x", "tiff", made),
        "x.npz": lambda p: write_result(p.parent / "x", "npz", made),
        "report.html": lambda p: write_report(p, "x" * 2000, pictures={}, rows=[], settings={}),
        "a.npy": lambda p: write_npy(p, array),
        "a.npz": lambda p: write_npz(p, {"a": array}),
        "a.json": lambda p: write_json(p, array),
        "a.png": lambda p: save_figure(p, figure),
        "geometry.json": lambda p: write_geometry(p, geometry),
        "w.safetensors": lambda p: write_weights(p),
        "converted.safetensors": converted,
    }
    for name, write in writers.items():
        for old in (None, b"older"):
            path = target / name
            path.parent.mkdir(exist_ok=True)
            if old:
                path.write_bytes(old)
            with full_disk(1000):
                outcome, message = attempt(lambda write=write, path=path: write(path))
            left = path.read_bytes() if path.exists() else None
            if outcome == "value" or left != old or list(target.rglob("*.tmp")) or list(target.rglob(".*")):
                outcome = "half-written"
            yield f"full disk, {name}, {'replacing' if old else 'new'}", outcome, message
            path.unlink(missing_ok=True)
        for where, path in (("read-only folder", _unwritable(folder) / name), ("a file in the way", source / name)):
            outcome, message = attempt(lambda write=write, path=path: write(path))
            yield f"{where}, {name}", "half-written" if outcome == "value" else outcome, message


def _unwritable(folder: Path) -> Path:
    """A folder that cannot be written, by root neither."""
    if os.geteuid() == 0:
        return Path("/proc/self/fdinfo")
    locked = folder / "locked"
    locked.mkdir(exist_ok=True)
    locked.chmod(0o500)
    return locked


def programs(folder: Path, count: int) -> Iterator[tuple[str, str, str]]:
    """The same by the programs themselves: exit code 2 and one line, nothing written."""
    good = seeds(folder)
    target = folder / "results"
    frame = ["--image-shape", "16", "16", "--patch", "8", "--low", "0", "--high", "1"]
    samples = ["--weights", folder / "w.safetensors", "--workdir", target]
    bad = folder / "bad"
    bad.mkdir()
    for i, (name, command) in enumerate((
        ("authors.pkl", lambda p: ["convert", p, target / "o.safetensors", *frame]),
        ("scan.h5", lambda p: ["sample", *samples, "--measurement.path", p]),
        ("w.safetensors", lambda p: ["sample", "--weights", p, "--workdir", target]),
        ("a.dcm", lambda p: ["sample", *samples, "--image.path", p, "--image.index", "0"]),
        ("scan.npy", lambda p: ["sample", *samples[:2], "--workdir", _unwritable(folder) / "x", "--measurement.path",
                                folder / "scan.npy", "--measurement.geometry", folder / "good.json"]),
    )[:count]):  # fmt: skip
        path = bad / name
        path.write_bytes(good[name][0][: -len(good[name][0]) // 3])
        program, *rest = command(path)
        done = subprocess.run(
            [sys.executable, "-c", f"from padis_jax.cli.{program} import main; main()", *map(str, rest)],
            capture_output=True, text=True, timeout=600, cwd=folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        fine = done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        outcome = "half-written" if target.exists() else "refused" if fine else "traceback"
        yield f"program {i}, {name}", outcome, done.stderr


# Kind -> (its share of the cases, what makes its members by a seed and a number).
SOURCES: dict[str, tuple[int, Callable[[int, int], Iterable[Member]]]] = {
    "bombs": (60, lambda seed, count: bombs.members()),
    "special files": (110, lambda seed, count: special.members()),
    "orientations": (90, lambda seed, count: pictures.orientations()),
    "bit depths": (140, lambda seed, count: (*pictures.depths(), *volumes.volumes(), *volumes.slices())),
    "weights": (70, metadata.weights),
    "manifests": (50, metadata.jobs),
    "geometry": (40, lambda seed, count: (*metadata.equal_geometries(), *metadata.geometries(seed, count))),
    "measurement files": (40, lambda seed, count: scans.members()),
    "cone geometry": (50, lambda seed, count: (*cones.forms(), *cones.geometries(seed, count))),
    "RTK geometry": (60, cones.rtk),
    "volumes": (60, slices.members),
    "job folders": (40, jobs.members),
}
KINDS = (*SOURCES, DAMAGED)


def chosen(kind: str, count: int, seed: int) -> list[Member]:
    """The kind's share of `count` members, drawn by the seed."""
    share, make = SOURCES[kind]
    share = round(count * share / sum(share for share, _ in SOURCES.values()))
    made = list(make(seed, share))
    return [made[index] for index in np.random.default_rng([seed, len(made)]).permutation(len(made))[:share]]


def tried(
    folder: Path, count: int, seed: int, commands: int, kinds: Collection[str]
) -> Iterator[tuple[str, str, str, str]]:
    """(kind, case, what came of it, message) of the members, some of each kind by a program too."""
    by_program: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        waiting = []
        members = (member for kind in SOURCES if kind in kinds for member in chosen(kind, count, seed))
        for number, member in enumerate(members):
            place = folder / str(number)
            place.mkdir()
            outcome, message, path = judged(member, place)
            yield member.kind, member.name, outcome, message
            if member.command and by_program[member.kind] < commands:
                by_program[member.kind] += 1
                waiting.append((member, pool.submit(commanded, member, path, outcome)))
            else:
                shutil.rmtree(place)
        for member, found in waiting:
            yield member.kind, f"{member.name}, by a program", *found.result()


def run(
    cases: int, members: int, seed: int, *, processes: int = 5, commands: int = 10, kinds: Collection[str] = KINDS
) -> dict[str, Counter[str]]:
    """Tries the kinds, prints what went wrong, and counts what came of each: right, refused or wrong.

    Args:
      cases: files damaged at random, beside those made by hand.
      members: of the other kinds, together.
      seed: of all that is random.
      processes: damaged files that are repeated by the programs, at most 5.
      commands: members of each other kind that are repeated by a program.
      kinds: of `KINDS`.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    here = os.getcwd()
    parts: list[Callable[[Path], Iterator[tuple[str, str, str, str]]]] = [
        lambda folder: tried(folder, members, seed, commands, kinds)
    ]
    if DAMAGED in kinds:
        for make in (
            lambda folder: reading(folder, cases, seed), writing, lambda folder: programs(folder, processes)
        ):  # fmt: skip
            parts.append(lambda folder, make=make: ((DAMAGED, *found) for found in make(folder)))  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            for number, part in enumerate(parts):
                folder = Path(name) / f"part{number}"
                folder.mkdir()
                for kind, case, outcome, message in part(folder):
                    counts[kind][FINE.get(outcome, "wrong")] += 1
                    if outcome not in FINE:
                        print(f"{outcome}: {kind}: {case}: {' '.join(message.split())[:300]}", flush=True)
        finally:
            os.chdir(here)
    return dict(counts)


def main() -> None:
    """Command line; exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="files damaged at random, beside those made by hand")
    parser.add_argument("--members", type=int, default=600, help="of the other kinds, together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", type=int, default=10, help="cases of each kind that are repeated by a program")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    given = parser.parse_args()
    processes = min(5, given.commands)
    counts = run(given.cases, given.members, given.seed, processes=processes, commands=given.commands, kinds=given.only)
    for kind, found in counts.items():
        print(f"{kind:20s} {found['right']:5d} right, {found['refused']:5d} refused, {found['wrong']:3d} wrong")
    sys.exit(any(found["wrong"] for found in counts.values()))


if __name__ == "__main__":
    main()
