"""Shows that a change only moved code: the images of sample.py before and after it, bit for bit, in users' settings.

    python -m studies.same_bits --out runs/before                          at the old commit
    python -m studies.same_bits --out runs/after --against runs/before     at the new one, on the same machine
    python -m studies.same_bits --out runs/after --against runs/before --only demo deblur9 --levels 5

Runs the demo, one problem of each kind, a measured scan and a folder of two, each in a process of its own. With
--against it compares every array of both result folders and exits with code 2 if one differs. About twelve minutes on
two cores, less with fewer --levels. A rounding is a difference here; the golden images of tests/test_goldens.py allow
for it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from padis_jax.errors import UserError, one_line_errors
from padis_jax.operators import ParallelBeam

VIEWS, BINS, SIDE = 30, 384, 256
RUNS: dict[str, list[str]] = {
    "demo": [],
    "ct8": ["--problem", "ct8", "--scan.protocol", "paper"],
    "deblur9": ["--problem", "deblur9"],
    "sr4": ["--problem", "sr4", "--image.index", "20"],
    "inpaint_strokes": ["--problem", "inpaint_strokes"],
    "denoise": ["--problem", "denoise", "--solver.average", "1"],
    "samples": ["--samples", "2", "--solver.levels", "10"],
    "generate": ["--generate", "1", "--generate-levels", "10"],
    "measured": ["--measurement.path", "{scans}/a.npy", "--measurement.geometry", "{scans}/scan.json"],
    "folder": ["--measurements", "{scans}", "--measurement.geometry", "{scans}/scan.json", "--batch", "2"],
}


@one_line_errors()
def main() -> None:
    """Runs and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="receives a results folder for each run")
    parser.add_argument("--against", type=Path, help="an earlier --out")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--levels", type=int, help="noise levels of every run, rather than its own")
    args = parser.parse_args()
    scans = args.out / "scans"
    _write_scans(scans)
    different = []
    for name in args.only:
        workdir = args.out / name
        if workdir.exists():  # a folder of measurements would be resumed, and old images compared
            raise UserError(f"{workdir} is there already: remove it, or choose another --out")
        flags = [flag.format(scans=scans) for flag in RUNS[name]]
        if args.levels:
            flags += ["--generate-levels" if name == "generate" else "--solver.levels", str(args.levels)]
        subprocess.run([sys.executable, "sample.py", *flags, "--workdir", str(workdir), "--quiet"], check=True)
        verdict = "done"
        if args.against:
            verdict = compare(args.against / name, workdir)
            different += [name] if verdict != "the same" else []
        print(f"{name}: {verdict}", flush=True)
    if different:
        raise UserError(f"not the same bits: {', '.join(different)}")


def compare(before: Path, after: Path) -> str:
    """ "the same", or what differs between the arrays of two result folders."""
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.npz")})
    if not names:
        return "no arrays"
    for name in names:
        if not ((before / name).is_file() and (after / name).is_file()):
            return f"{name} is in one folder only"
        with np.load(before / name) as old, np.load(after / name) as new:
            if set(old) != set(new):
                return f"{name}: {sorted(old)} and {sorted(new)}"
            for key in old:
                if old[key].tobytes() != new[key].tobytes():
                    if old[key].dtype.kind != "f" or old[key].shape != new[key].shape:
                        return f"{name}: {key} differs"
                    return f"{name}: {key} differs by {np.abs(old[key] - new[key]).max():.3g}"
    return "the same"


def _write_scans(folder: Path) -> None:
    """Two measured scans of an ellipse with a hole, with noise, and their geometry; lengths in mm."""
    folder.mkdir(parents=True, exist_ok=True)
    angles = np.arange(VIEWS) * np.pi / VIEWS
    scan = ParallelBeam(image_shape=(SIDE, SIDE), angles=angles, detector_count=BINS)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    for name, where in (("a", 0.2), ("b", -0.3)):
        image = ((np.hypot(x / 0.6, y / 0.8) < 1) & (np.hypot(x - where, y) > 0.1)).astype(np.float32)
        lines = np.asarray(scan(image[..., None]))[..., 0] * 0.02
        lines += np.random.default_rng(0).normal(0, 0.01, lines.shape)
        np.save(folder / f"{name}.npy", lines.astype(np.float32))
    degrees = ", ".join(str(float(a)) for a in np.degrees(angles))
    text = f'{{"beam": "parallel", "angles": [{degrees}], "angle_unit": "degrees", "bins": {BINS}, "spacing_mm": 1.0}}'
    (folder / "scan.json").write_text(text)


if __name__ == "__main__":
    main()
