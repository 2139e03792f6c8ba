"""Electron tomography of a needle from fewer tilts: which image predicts the tilts that were left out?

    python -m studies.needle slices --path needle_tilt_series.npz     slices to train on, from all tilts of other rows
    python train.py --config configs/needle.py --workdir runs/needle
    python -m studies.needle choose                                   settings, on four rows of neither
    python -m studies.needle table                                    the tested rows

A tilt series of 77 projections from -76 to 76 degrees, without a truth. The rows of a projection are slices of the
specimen, a column of layers. `table` reconstructs 24 of them as one volume from every second tilt, from every fourth,
or from those within 60 degrees, and predicts the others:

    error = ||A' x - y'|| / ||y'||,   A' and y' the tilts that were left out

    method      what it is                                                      chosen on the validation rows
    fbp         filtered backprojection, negative values set to 0                -
    cgls, sirt  classical iterations, SIRT with x >= 0                          number of iterations
    tv          total variation in three dimensions                             weight
    pnp         plug-and-play ADMM with the prior of slices, from that of `tv`   weight and last level

What the prior has seen: total variation of all tilts of rows 0 to 107 and 160 to 195. Tested are rows 124 to 147, other
layers of the same specimen; the settings are those that predict the left-out tilts of rows 110 to 113 best. Finished
settings and rows have a file in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import file_hash, write_bytes, write_npy, write_npz
from padis_jax.operators import ParallelBeam
from padis_jax.solvers.classical import cgls, sirt
from padis_jax.solvers.presets import preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.volume_weights import load_volume_prior
from studies.cells import kept

BINS = slice(64, 192)  # the specimen is within 48 bins of the axis in every tilt
TRAINED, VALIDATION, TESTED = (*range(108), *range(160, 196)), tuple(range(110, 114)), tuple(range(124, 148))
KEPT = {
    "half": lambda tilts: np.arange(len(tilts)) % 2 == 0,
    "quarter": lambda tilts: np.arange(len(tilts)) % 4 == 0,
    "within 60": lambda tilts: np.abs(tilts) <= 60,
}
CANDIDATES: dict[str, tuple[dict[str, float], ...]] = {
    "fbp": ({},),
    "cgls": tuple({"iterations": n} for n in (3, 5, 8, 12, 20, 30, 50)),
    "sirt": tuple({"iterations": n} for n in (10, 20, 50, 100, 200, 400)),
    "tv": tuple({"weight": w} for w in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)),
    "pnp": tuple({"weight": w, "last": s} for s in (0.01, 0.02, 0.04) for w in (0.0005, 0.002, 0.008, 0.03)),
}
EVALUATIONS, TV_ITERATIONS = 25, 300


class Series(NamedTuple):
    """y [D, tilts, bins] in image units times pixels, the tilts in degrees, and the density that became 1."""

    y: np.ndarray
    tilts: np.ndarray
    high: float


@one_line_errors()
def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("slices", "choose", "table"))
    parser.add_argument("--path", default="data/needle_tilt_series.npz", help="the tilt series")
    parser.add_argument("--weights", default="runs/needle/weights.safetensors")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), help="methods")
    parser.add_argument("--out", type=Path, default=Path("results/needle"))
    args = parser.parse_args()
    series = read(args.path)
    if args.part == "slices":
        slices(series, args)
        return
    for view_set in KEPT:
        for method in args.only:
            chosen = choose(method, view_set, series, args)
            if args.part == "table":
                row(method, view_set, chosen, series, args)
    if args.part == "table":
        text = markdown(args.out, args.only)
        write_bytes(args.out / "results.md", text.encode())
        print(text)


def read(path: str) -> Series:
    """The series; what the empty bins of a tilt hold (their median) is taken off.

    Raises:
      UserError: if the file is not that of the needle.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            counts, tilts = np.asarray(file["projections"], np.float32), np.asarray(file["tilt_degrees"], np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not the tilt series of the needle ({error}); give --path") from None
    if counts.shape != (77, 256, 256) or tilts.shape != (77,):
        raise UserError(f"{path}: {counts.shape} projections; the needle has 77 tilts of 256 bins and 256 rows")
    empty = np.median(np.concatenate([counts[:, :48, :200], counts[:, 208:, :200]], axis=1), axis=(1, 2))
    y = np.transpose(counts - empty[:, None, None], (2, 0, 1))[:, :, BINS]
    some = y[list(TRAINED[::12])]
    # Total variation finds twice as much in what is dense as filtered backprojection shows, which lacks angles.
    high = 2 * float(np.percentile(np.maximum(operator(len(some), tilts).start(jnp.asarray(some)), 0), 99.5))
    return Series(y / high, tilts, high)


def operator(depth: int, tilts: np.ndarray) -> Any:
    """Line sums of [depth, 128, 128] in pixels."""
    side = BINS.stop - BINS.start
    return ParallelBeam(
        volume_shape=(depth, side, side),
        angles=np.deg2rad(tilts),
        detector_count=side,
        detector_spacing=1,
        pixel_size=1,
    )


def slices(series: Series, args: argparse.Namespace) -> None:
    """Total variation of all tilts of the rows that are trained on, 12 at a time, by the weight that `half` chose."""
    a, found = operator(12, series.tilts), []
    weight = choose("tv", "half", series, args)["weight"] * float(a.norm) ** 2
    for i in tqdm(range(0, len(TRAINED), 12), desc="slices", unit="block"):
        rows = list(TRAINED[i : i + 12])
        found.append(smoothed(jnp.asarray(series.y[rows]), a, weight))
    args.out.mkdir(parents=True, exist_ok=True)
    write_npy(args.out / "slices.npy", np.clip(np.concatenate(found), 0, 1))
    print(args.out / "slices.npy", flush=True)


def smoothed(y: Any, a: Any, weight: float) -> Any:
    """Total variation in three dimensions, of cubic voxels."""
    settings = dataclasses.replace(for_volumes(TV(weight=weight, iterations=TV_ITERATIONS)), depth=1.0)
    return total_variation(y, a, settings=settings).image


def choose(method: str, view_set: str, series: Series, args: argparse.Namespace) -> dict[str, float]:
    """The candidate that predicts the left-out tilts of the validation rows best."""
    errors = []
    for number, settings in enumerate(CANDIDATES[method]):
        about = described(method, view_set, settings, VALIDATION, series, args)
        path = args.out / "choose" / f"{view_set}_{method}_{number}.json"
        errors.append(kept(path, about, functools.partial(_errors, method, view_set, settings, series, args))["error"])
    best = int(np.argmin(errors))
    print(
        f"{view_set}, {method}: {CANDIDATES[method][best]}, error {errors[best]:.4f} on the validation rows", flush=True
    )
    return CANDIDATES[method][best]


def _errors(method: str, view_set: str, settings: Any, series: Series, args: argparse.Namespace) -> dict[str, float]:
    return score(method, view_set, settings, VALIDATION, series, args)[0]


def row(method: str, view_set: str, chosen: dict[str, float], series: Series, args: argparse.Namespace) -> None:
    """Reconstructs the tested rows and keeps the volume."""

    def run() -> dict[str, float]:
        found, volume = score(method, view_set, chosen, TESTED, series, args)
        write_npz(args.out / "table" / f"{view_set}_{method}.npz", {"volume": volume * series.high})
        return found

    kept(
        args.out / "table" / f"{view_set}_{method}.json", described(method, view_set, chosen, TESTED, series, args), run
    )


def described(
    method: str, view_set: str, settings: Any, rows: Any, series: Series, args: argparse.Namespace
) -> dict[str, Any]:
    """What a cell depends on."""
    about = {"method": method, "views": view_set, "settings": settings, "rows": [rows[0], rows[-1]]}
    about |= {"series": file_hash(args.path), "tv_iterations": TV_ITERATIONS}
    if method == "pnp":
        about |= {
            "weights": file_hash(args.weights),
            "evaluations": EVALUATIONS,
            "start": choose("tv", view_set, series, args),
        }
    return about


def score(
    method: str, view_set: str, settings: Any, rows: Any, series: Series, args: argparse.Namespace
) -> tuple[dict[str, float], np.ndarray]:
    """Errors on the left-out and on the kept tilts, seconds with compilation; the volume."""
    use = KEPT[view_set](series.tilts)
    y = jnp.asarray(series.y[list(rows)])
    a, other = operator(len(rows), series.tilts[use]), operator(len(rows), series.tilts[~use])
    tv = choose("tv", view_set, series, args)["weight"] if method == "pnp" else 0.0
    start = time.perf_counter()
    volume = jax.block_until_ready(solve(method, settings, y[:, use], a, tv, args))
    seconds = time.perf_counter() - start

    def error(op: Any, wanted: Any) -> float:
        return float(jnp.linalg.norm(op(volume) - wanted) / jnp.linalg.norm(wanted))

    return {"error": error(other, y[:, ~use]), "kept": error(a, y[:, use]), "seconds": seconds}, np.asarray(volume)


def solve(method: str, settings: Any, y: Any, a: Any, tv: float, args: argparse.Namespace) -> Any:
    """The volume [D, H, W] of a method; weights of total variation (`tv`: of the start) are relative to ||A||^2."""
    if method == "fbp":
        return jnp.maximum(a.start(y), 0)
    if method in ("cgls", "sirt"):
        return {"cgls": cgls, "sirt": sirt}[method](y, a, iterations=settings["iterations"]).image
    square = float(a.norm) ** 2
    if method == "tv":
        return smoothed(y, a, settings["weight"] * square)
    plan = preset("pnp_admm", "ct", EVALUATIONS, given={"weight": settings["weight"]})
    options = {"solver": plan.settings, **plan.options(), "sigma_min": settings["last"]}
    options["start"] = smoothed(y, a, tv * square)
    # not mirrored, as all figures of its page
    return reconstruct(0, y, a, load_volume_prior(args.weights, depth=len(y), mirror=False), **options).image


def markdown(out: Path, methods: list[str]) -> str:
    """The table of the tested rows."""
    lines = [
        "| tilts | method | settings | error of the left-out tilts | of the kept | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for view_set, method in cells(methods):
        saved = json.loads((out / "table" / f"{view_set}_{method}.json").read_text())
        found, settings = saved["row"], saved["about"]["settings"]
        said = ", ".join(f"{name} {value:g}" for name, value in settings.items())
        lines.append(
            f"| {view_set} | {method} | {said} | {found['error']:.4f} | {found['kept']:.4f} | {found['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def cells(methods: list[str]) -> Iterator[tuple[str, str]]:
    """Every set of tilts with every method."""
    return ((view_set, method) for view_set in KEPT for method in methods)


if __name__ == "__main__":
    main()
