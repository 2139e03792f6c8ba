"""Real limited-angle scans: the discs of the Helsinki Tomography Challenge 2022, and how well their holes are found.

    python -m studies.htc2022 --data htc2022.npz --joined        is the geometry right: FBP of all views of tb
    python -m studies.htc2022 --data htc2022.npz                 every arc, and --views drawn from all: FBP, TV
    python -m studies.htc2022 --data htc2022.npz --weights FILE  the same, and TMPD in passes (passes.py) with
                                                                    contours fitted in between (contour.py)
    python -m studies.htc2022 --synthetic 8 91 --weights FILE    discs of a seed not trained on: to tune with

--data, or the environment variable HTC2022, names the file (studies/htc2022/data.py says what is in it). Images are
--side pixels wide, those of the prior half as many (as many with --contour-bin 0, which fits no contours); detector
bins are joined and views left out by --bin, --contour-bin and --thin, which saves time. Score: Otsu's threshold on the
image, brought to the truth's 512 x 512 pixels by linear interpolation, then the Matthews correlation coefficient.
Measured values become paths through the material in mm by a polynomial that takes out beam hardening (hardening.py);
its three coefficients and the shift of the detector belong to scanner and material, and are fitted to all views of tb,
without the truth. What is left of that fit, noise and what the model does not know, is the noise that TMPD is told,
more of it for longer paths; unless --noise gives that of every value (mm). Settings are to be chosen with --synthetic,
whose scans are simulated on the truth's 512 x 512 pixels with noise of 0.4 mm: no measured truth is tuned on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from skimage.filters import threshold_otsu
from tqdm import tqdm

from padis_jax import load_prior
from padis_jax.errors import UserError, one_line_errors
from padis_jax.metrics import matthews
from padis_jax.operators import fbp
from padis_jax.prior import Prior
from padis_jax.runs.solve import timed
from padis_jax.solvers.tv import TV, total_variation
from studies.htc2022.beam_hardening import Hardening, fit_hardening
from studies.htc2022.data import (
    BINS,
    TRUTH_SIDE,
    Arc,
    Phantom,
    bin_detector,
    draw_views,
    join,
    read_htc2022,
    scanner,
)
from studies.htc2022.discs import disc
from studies.htc2022.level_set import contour_fit
from studies.htc2022.report import save, table
from studies.htc2022.restarts import Passes, passes

Found = tuple[np.ndarray, float]  # image, seconds
SPANS = (30.0, 50.0, 90.0)
CALIBRATION_SIDE = JOINED_SIDE = 256  # whatever the reconstructions have
SYNTHETIC_NOISE = 0.4  # mm, of a bin as measured
SYNTHETIC_TOLD = 0.3  # of bins joined by 4, with what pixels of 1 / 128 of the side get wrong
SYNTHETIC_SEED = 1  # the prior's discs have seed 0


def score(image: np.ndarray | jax.Array, truth: np.ndarray) -> float:
    """Matthews coefficient of an image [side, side] after Otsu's threshold at the truth's size."""
    large = np.asarray(jax.image.resize(jnp.asarray(image), truth.shape, "linear"))
    return matthews(large > threshold_otsu(large), truth)


def joined_score(phantom: Phantom, side: int) -> float:
    """The score of the FBP of all views, which tells whether the geometry is right."""
    whole = join(phantom.arcs)
    return score(fbp(scanner(whole, side), jnp.asarray(whole.sinogram)), phantom.truth)


def methods(arc: Arc, args: argparse.Namespace, prior: Prior | None, hardening: Hardening | None) -> dict[str, Found]:
    """Image and seconds of every method; the arc holds paths in mm, in bins as measured."""
    fine, arc = arc, bin_detector(arc, args.bin)
    operator = scanner(arc, args.side)
    y = jnp.asarray(arc.sinogram)
    found: dict[str, Any] = {"FBP": timed(operator.start, y)}
    settings = TV(weight=args.tv_weight, iterations=args.tv_iterations)
    found["TV"] = timed(lambda: total_variation(y[..., None], operator, settings=settings).image[..., 0])
    if prior:
        with tqdm(total=args.chains * (1 + args.passes), desc=arc.name, unit="pass", leave=False) as bar:
            found["TMPD"] = timed(
                passes,
                jax.random.key(args.seed),
                arc,
                prior,
                noise=deviation(arc, args, hardening),
                chains=args.chains,
                settings=Passes(count=args.passes, levels=args.levels),
                fit=contours(fine, args, hardening) if args.contour_bin else None,
                progress=bar.update,
            )
    return {name: (np.asarray(image), seconds) for name, (image, seconds) in found.items()}


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HTC2022", ""), help="the .npz; or set HTC2022")
    parser.add_argument("--joined", action="store_true", help="the joined arcs of tb only")
    parser.add_argument("--weights", help="of a prior of discs of half of --side; for TMPD")
    parser.add_argument("--phantoms", nargs="+", default=["tb"])
    parser.add_argument("--views", type=int, default=20, help="drawn from all of a phantom")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--bin", type=int, default=4, help="detector bins joined to one")
    parser.add_argument("--thin", type=int, default=2, help="of the views of an arc, every how manieth is used")
    parser.add_argument("--tv-weight", type=float, default=1.0)
    parser.add_argument("--tv-iterations", type=int, default=500)
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="of a value of --bin bins, in mm; 0 for that of the calibration, or of --synthetic",
    )
    parser.add_argument("--chains", type=int, default=8, help="from noise, the mean of which is the image")
    parser.add_argument("--passes", type=int, default=Passes.count, help="of each chain, after the run from noise")
    parser.add_argument("--levels", type=int, default=Passes.levels, help="of each of these passes")
    parser.add_argument(
        "--contour-bin",
        type=int,
        default=2,
        help="bins joined for the fit of contours; 0 for none, at the prior's side",
    )
    parser.add_argument("--spans", type=float, nargs="+", help="only arcs of so many degrees")
    parser.add_argument("--scans", nargs="+", help="only those of these names, such as tb_42_72 and tb_all")
    parser.add_argument("--synthetic", type=int, nargs="+", help="numbers of synthetic discs in the place of the data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/htc2022"))
    args = parser.parse_args()
    _check(args)
    prior = read_prior(args.weights, args.side, 2 if args.contour_bin else 1) if args.weights else None
    about: dict[str, Any] = {"settings": vars(args)}
    hardening = None
    if args.synthetic:
        args.noise = args.noise or SYNTHETIC_TOLD
        phantoms = synthetic(args.synthetic, args.spans or SPANS, SYNTHETIC_NOISE)
        args.phantoms = list(phantoms)
    else:
        phantoms = measured(args)
    _check_scans(args, phantoms)
    if not args.synthetic:
        about["joined"] = joined_score(phantoms["tb"], JOINED_SIDE)
        print(f"tb, all views joined, FBP: Matthews coefficient {about['joined']:.4f}", flush=True)
        if args.joined:
            return
        phantoms, hardening = calibrated(phantoms)
        about["hardening"] = hardening._asdict()
        print(
            f"paths in mm: {hardening.coefficients.round(3)}, misfit {hardening.misfit:.3f} mm, "
            f"detector shifted by {hardening.shift:.3f} mm",
            flush=True,
        )
    rows: list[dict[str, Any]] = []
    images: dict[str, np.ndarray] = {}
    for name in args.phantoms:
        phantom = phantoms[name]
        for arc in scans(name, phantom, args):
            row: dict[str, Any] = {"scan": arc.name, "degrees": round(arc.degrees, 1), "views": len(arc.angles)}
            for method, (image, seconds) in methods(arc, args, prior, hardening).items():
                row[method] = {"matthews": score(image, phantom.truth), "seconds": seconds}
                images[f"{arc.name}/{method}"] = image
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
            save(args.out, about, rows, images)  # after every scan: with --weights each takes minutes
    print(table(rows))


def scans(name: str, phantom: Phantom, args: argparse.Namespace) -> list[Arc]:
    """What of a phantom is reconstructed: --views drawn from all, NAME_all, and its arcs, thinned; or what is asked."""
    arcs = [a for a in phantom.arcs if args.synthetic or not args.spans or round(a.degrees) in args.spans]
    arcs = [a for a in arcs if not args.scans or a.name in args.scans]
    thinned = [a._replace(angles=a.angles[:: args.thin], sinogram=a.sinogram[:: args.thin]) for a in arcs]
    every = f"{name}_all"
    if args.synthetic or args.spans or (args.scans and every not in args.scans):
        return thinned
    return [draw_views(join(phantom.arcs, f"--views {args.views}: {every}"), args.views)._replace(name=every), *thinned]


def _check_scans(args: argparse.Namespace, phantoms: dict[str, Phantom]) -> None:
    """Raises UserError for a scan that is not there, or if none is left."""
    found = [f"{arc.name} ({arc.degrees:g} degrees)" for name in args.phantoms for arc in phantoms[name].arcs]
    there = f"{', '.join(args.phantoms)}: {', '.join(found)}"
    left = [arc.name for name in args.phantoms for arc in scans(name, phantoms[name], args)]
    for name in args.scans or ():
        if name not in left:
            raise UserError(f"--scans {name}: no such scan, or left out by --spans; the arcs of --phantoms {there}")
    if not left:
        spans = " ".join(f"{span:g}" for span in args.spans)
        raise UserError(f"--spans {spans}: no scan is left; the arcs of --phantoms {there}")


def deviation(arc: Arc, args: argparse.Namespace, hardening: Hardening | None) -> float | np.ndarray:
    """The deviation that TMPD is told of the values of an arc, in mm; of each if the calibration says it."""
    return args.noise if args.noise or hardening is None else hardening.noise(arc.sinogram)


def contours(arc: Arc, args: argparse.Namespace, hardening: Hardening | None) -> Callable[[jax.Array], jax.Array]:
    """The fit of contours to an arc as measured; its bins, most often smaller, weigh together as much as --bin's."""
    arc = bin_detector(arc, args.contour_bin)
    noise = np.sqrt(args.bin / args.contour_bin) * deviation(arc, args, hardening)
    return contour_fit(arc, args.side, noise=noise)


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for a number that cannot be, before the calibration, which takes minutes."""
    if args.synthetic and args.joined:
        raise UserError("--joined is of the measured scans: leave out --synthetic")
    leasts = {"chains": 1, "passes": 0, "levels": 1, "thin": 1, "views": 1, "bin": 1, "contour_bin": 0, "noise": 0}
    for option, least in leasts.items():
        if not getattr(args, option) >= least:
            raise UserError(f"--{option.replace('_', '-')} {getattr(args, option)}: it must be at least {least}")
    for option, bins in (("--bin", args.bin), ("--contour-bin", args.contour_bin)):
        if bins and BINS % bins:
            raise UserError(f"{option} {bins}: it must divide the {BINS} bins")


def read_prior(path: str, side: int, finer: int) -> Prior:
    """The prior, for images of `side` / `finer` pixels along a side.

    Raises:
      UserError: for a prior of images of another size.
    """
    prior = load_prior(path)
    height, width = prior.frame.image_shape
    if not height * finer == width * finer == side:
        raise UserError(
            f"--weights {path}: its images have {height} x {width} pixels, which is for --side {2 * height}, or "
            f"{height} with --contour-bin 0"
        )
    return prior


def measured(args: argparse.Namespace) -> dict[str, Phantom]:
    """The measured phantoms.

    Raises:
      UserError: without data, or for a phantom that is not among them.
    """
    if not args.data:
        raise UserError("no data: give --data FILE, or set HTC2022; studies/htc2022/data.py says what is in it")
    phantoms = read_htc2022(args.data)
    for name in ("tb", *args.phantoms):
        if name not in phantoms:
            raise UserError(f"{args.data}: there is no phantom {name}; it holds {', '.join(phantoms)}")
    return phantoms


def calibrated(phantoms: dict[str, Phantom]) -> tuple[dict[str, Phantom], Hardening]:
    """The phantoms with paths in mm and the detector's shift, and the calibration, made with tb."""
    whole = join(phantoms["tb"].arcs)
    some = bin_detector(Arc("", whole.angles[::3], whole.sinogram[::3]), 2)
    hardening = fit_hardening(lambda shift: scanner(some._replace(shift=shift), CALIBRATION_SIDE), some.sinogram)
    return {
        name: Phantom(
            tuple(a._replace(sinogram=hardening.paths(a.sinogram), shift=hardening.shift) for a in phantom.arcs),
            phantom.truth,
        )
        for name, phantom in phantoms.items()
    }, hardening


def synthetic(numbers: Sequence[int], spans: Sequence[float], noise: float) -> dict[str, Phantom]:
    """Discs of a seed of their own, with an arc of each span from a random angle on, in half-degree steps.

    Args:
      numbers: of the discs.
      spans: in degrees.
      noise: of a ray, material = 1, times mm.

    Raises:
      UserError: for a number below 0.
    """
    if min(numbers) < 0:
        raise UserError(f"--synthetic {min(numbers)}: discs are numbered from 0 on")
    phantoms = {}
    for index in numbers:
        rng = np.random.default_rng([SYNTHETIC_SEED, index])
        image = disc(SYNTHETIC_SEED, index, side=TRUTH_SIDE)
        arcs = []
        for span in spans:
            angles = np.deg2rad(np.arange(0, span + 0.25, 0.5) + rng.uniform(0, 360))
            rays = scanner(Arc("", angles, np.empty((len(angles), BINS))), TRUTH_SIDE)(jnp.asarray(image))
            arcs.append(Arc(f"disc{index}_{span:g}", angles, np.asarray(rays + noise * rng.normal(size=rays.shape))))
        phantoms[f"disc{index}"] = Phantom(tuple(arcs), image > 0.5)
    return phantoms


if __name__ == "__main__":
    main()
