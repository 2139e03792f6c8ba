"""Real limited-angle scans: the discs of the Helsinki Tomography Challenge 2022, and how well their holes are found.

    python -m benchmarks.htc2022 --data htc2022.npz --joined      is the geometry right: FBP of all views of phantom tb
    python -m benchmarks.htc2022 --data htc2022.npz               every arc, and --views drawn from all: FBP, TV
    python -m benchmarks.htc2022 ... --weights W64 W128           the same, and TMPD, coarse to fine (coarse_to_fine.py)
    python -m benchmarks.htc2022 ... --weights W64 --contour-bin 2    TMPD and the fit of contours in turns (contour.py)
    python -m benchmarks.htc2022 --synthetic 8 91 --weights ...   discs of a seed that was not trained on: to tune with

--data, or the environment variable HTC2022, names the file (padis_jax/scans/htc2022.py says what is in it). Images are
--side pixels wide; detector bins are joined and views left out by --bin and --thin, which saves time. Score: Otsu's
threshold on the image, brought to the truth's 512 x 512 pixels by linear interpolation, then the Matthews correlation
coefficient. Measured values become paths through the material in mm by a polynomial that takes out beam hardening
(hardening.py); its three coefficients and the shift of the detector belong to scanner and material, and are fitted to
all views of tb, without the truth. What is left of that fit, noise and what the model does not know, is the noise that
TMPD is told, more of it for longer paths; unless --noise gives that of every ray (mm). Settings are to be chosen with
--synthetic, whose scans are simulated on the truth's 512 x 512 pixels with noise of 0.4 mm: no measured truth is tuned
on.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from skimage.filters import threshold_otsu

from benchmarks.coarse_to_fine import COARSE, FINE, coarse_to_fine
from benchmarks.contour import contour_fit
from benchmarks.hardening import Hardening, fit_hardening
from benchmarks.htc2022_report import save, table
from padis_jax import load_prior
from padis_jax.errors import UserError, one_line_errors
from padis_jax.experiment import timed
from padis_jax.metrics import matthews
from padis_jax.operators import fbp
from padis_jax.phantoms import disc
from padis_jax.prior import Prior
from padis_jax.scans.htc2022 import (
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
from padis_jax.solvers.tv import TV, total_variation

Found = tuple[np.ndarray, float]  # image, seconds
SPANS = (30.0, 50.0, 90.0)
CALIBRATION_SIDE = 256
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


Fit = Callable[[int], Callable[[jax.Array], jax.Array]]


def methods(
    arc: Arc, args: argparse.Namespace, priors: Sequence[Prior], noise: float | np.ndarray, fit: Fit | None
) -> dict[str, Found]:
    """Image and seconds of every method; the arc holds paths in mm, `noise` is the deviation of all or of each."""
    operator = scanner(arc, args.side)
    y = jnp.asarray(arc.sinogram)
    found: dict[str, Any] = {"FBP": timed(operator.start, y)}
    settings = TV(weight=args.tv_weight, iterations=args.tv_iterations)
    found["TV"] = timed(lambda: total_variation(y[..., None], operator, settings=settings).image[..., 0])
    if priors:
        found["TMPD"] = timed(
            coarse_to_fine,
            jax.random.key(args.seed),
            arc,
            priors,
            noise=noise,
            side=args.side,
            chains=args.chains,
            coarse=dataclasses.replace(COARSE, passes=args.coarse_passes, levels=args.coarse_levels),
            fine=dataclasses.replace(FINE, passes=args.fine_passes),
            fit=fit,
        )
    return {name: (np.asarray(image), seconds) for name, (image, seconds) in found.items()}


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HTC2022", ""), help="the .npz; or set HTC2022")
    parser.add_argument("--joined", action="store_true", help="the joined arcs of tb only")
    parser.add_argument("--weights", nargs="+", default=[], help="of priors of discs, each for twice the side")
    parser.add_argument("--phantoms", nargs="+", default=["tb"])
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--bin", type=int, default=2, help="detector bins joined to one")
    parser.add_argument("--thin", type=int, default=2, help="of the views of an arc, every how manieth is used")
    parser.add_argument("--tv-weight", type=float, default=1.0)
    parser.add_argument("--tv-iterations", type=int, default=500)
    parser.add_argument("--noise", type=float, default=0.0, help="of a ray in mm; 0 for the calibration's")
    parser.add_argument("--chains", type=int, default=8, help="from noise, the mean of which is the image")
    parser.add_argument("--coarse-passes", type=int, default=COARSE.passes, help="of each, with the first of --weights")
    parser.add_argument("--coarse-levels", type=int, default=COARSE.levels, help="of each of these passes")
    parser.add_argument("--contour-bin", type=int, default=0, help="bins joined for the fit of contours; 0 for none")
    parser.add_argument("--fine-passes", type=int, default=FINE.passes, help="then with every finer one")
    parser.add_argument("--spans", type=float, nargs="+", help="only arcs of so many degrees")
    parser.add_argument("--scans", nargs="+", help="only arcs of these names, such as tb_42_72")
    parser.add_argument("--synthetic", type=int, nargs="+", help="numbers of synthetic discs in the place of the data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/htc2022"))
    args = parser.parse_args()
    _check(args)
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
        about["joined"] = joined_score(phantoms["tb"], args.side)
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
    priors = read_priors(args.weights, args.side >> bool(args.contour_bin))
    rows: list[dict[str, Any]] = []
    images: dict[str, np.ndarray] = {}
    for name in args.phantoms:
        phantom = phantoms[name]
        arcs = [a for a in phantom.arcs if chosen(a, args)]
        thinned = [a._replace(angles=a.angles[:: args.thin], sinogram=a.sinogram[:: args.thin]) for a in arcs]
        drawn = [] if args.spans or args.scans else [draw_views(join(phantom.arcs, f"{name}, all"), args.views)]
        for measured_arc in [*drawn, *thinned]:
            arc = bin_detector(measured_arc, args.bin)
            row: dict[str, Any] = {"scan": arc.name, "degrees": round(arc.degrees, 1), "views": len(arc.angles)}
            noise = args.noise if args.noise or hardening is None else hardening.noise(arc.sinogram)
            fit = contours(measured_arc, args, hardening) if args.contour_bin else None
            for method, (image, seconds) in methods(arc, args, priors, noise, fit).items():
                row[method] = {"matthews": score(image, phantom.truth), "seconds": seconds}
                images[f"{arc.name}/{method}"] = image
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
            save(args.out, about, rows, images)  # after every scan: with --weights each takes minutes
    print(table(rows))


def _check_scans(args: argparse.Namespace, phantoms: dict[str, Phantom]) -> None:
    """Raises UserError for a scan that is not there, or if none is left."""
    arcs = [arc for name in args.phantoms for arc in phantoms[name].arcs]
    there = ", ".join(f"{arc.name} ({arc.degrees:g} degrees)" for arc in arcs)
    for name in args.scans or ():
        if name not in [arc.name for arc in arcs]:
            raise UserError(f"--scans {name}: there is no such scan; there are {there}")
    if not any(chosen(arc, args) for arc in arcs):
        raise UserError(f"--spans {' '.join(f'{span:g}' for span in args.spans)}: no scan is left; there are {there}")


def chosen(arc: Arc, args: argparse.Namespace) -> bool:
    """Whether --spans and --scans let it be."""
    return (not args.spans or round(arc.degrees) in args.spans) and (not args.scans or arc.name in args.scans)


def contours(arc: Arc, args: argparse.Namespace, hardening: Hardening | None) -> Fit:
    """The fit of contours to an arc as measured; its smaller bins weigh together as much as those of --bin."""
    arc = bin_detector(arc, args.contour_bin)
    noise = args.noise if args.noise or hardening is None else hardening.noise(arc.sinogram)
    return functools.partial(contour_fit, arc, noise=np.sqrt(args.bin / args.contour_bin) * noise)


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for a number that cannot be, before the calibration, which takes minutes."""
    leasts = {"chains": 1, "coarse_passes": 0, "fine_passes": 0, "thin": 1, "views": 1, "bin": 1, "noise": 0}
    leasts |= {"coarse_levels": 1, "contour_bin": 0}
    for option, least in leasts.items():
        if not getattr(args, option) >= least:
            raise UserError(f"--{option.replace('_', '-')} {getattr(args, option)}: it must be at least {least}")
    for option, bins in (("--bin", args.bin), ("--contour-bin", args.contour_bin)):
        if bins and BINS % bins:
            raise UserError(f"{option} {bins}: it must divide the {BINS} bins")


def read_priors(paths: Sequence[str], side: int) -> list[Prior]:
    """The priors, from coarse to fine, the last one for images of `side` pixels.

    Raises:
      UserError: for a prior of images of another size than its place demands.
    """
    priors = [load_prior(path) for path in paths]
    for finer, (path, prior) in enumerate(zip(paths, priors, strict=True)):
        shape, wanted = tuple(prior.frame.image_shape), side / 2 ** (len(paths) - 1 - finer)
        if shape != (wanted, wanted):
            raise UserError(
                f"--weights {path}: its images have {shape[0]} x {shape[1]} pixels, but with --side {side} its place "
                f"is for {wanted:g} x {wanted:g}; give coarse weights before fine ones, each for twice the side"
            )
    return priors


def measured(args: argparse.Namespace) -> dict[str, Phantom]:
    """The measured phantoms.

    Raises:
      UserError: without data, or for a phantom that is not among them.
    """
    if not args.data:
        raise UserError("no data: give --data FILE, or set HTC2022; padis_jax/scans/htc2022.py says what is in it")
    phantoms = read_htc2022(args.data)
    for name in ("tb", *args.phantoms):
        if name not in phantoms:
            raise UserError(f"{args.data}: there is no phantom {name}; it holds {', '.join(phantoms)}")
    return phantoms


def calibrated(phantoms: dict[str, Phantom]) -> tuple[dict[str, Phantom], Hardening]:
    """The phantoms with paths in mm and the detector's shift, and the calibration, made with tb.

    Its pixels are those of 256 x 256, whatever those of the reconstructions: the bins of the data are as fine.
    """
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
            arcs.append(Arc(f"disc{index}, {span:g}", angles, np.asarray(rays + noise * rng.normal(size=rays.shape))))
        phantoms[f"disc{index}"] = Phantom(tuple(arcs), image > 0.5)
    return phantoms


if __name__ == "__main__":
    main()
