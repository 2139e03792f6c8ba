"""Real limited-angle scans: the discs of the Helsinki Tomography Challenge 2022, and how well their holes are found.

    python -m studies.htc2022 --data htc2022.npz                 every arc, and 20 views drawn from all: FBP, TV
    python -m studies.htc2022 --data htc2022.npz --weights FILE  the same, and TMPD with restarts and a level set
    python -m studies.htc2022 --synthetic 8 91 --weights FILE    discs of a seed not trained on, to choose settings with

--data, or the environment variable HTC2022, names the file (studies/htc2022/data.py says what is in it). The first line
printed is the score of the FBP of all views of tb, which shows whether the geometry is right. Score: Otsu's threshold
on the image, interpolated linearly to the truth's 512 x 512 pixels, then the Matthews correlation coefficient. Measured
values become paths through the material in mm by a calibration with all views of tb, without the truth
(beam_hardening.py); its residual is the noise that TMPD assumes. Scans of --synthetic are simulated on the truth's
pixels with noise of 0.4 mm: no settings are chosen on a measured truth. docs/studies/htc2022.md has the figures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from skimage.filters import threshold_otsu
from tqdm import tqdm

from padis_jax import load_prior
from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure
from padis_jax.files import write_json, write_npz
from padis_jax.metrics import matthews
from padis_jax.operators import fbp
from padis_jax.prior import Prior
from padis_jax.runs.solve import timed
from padis_jax.solvers.tv import TV, total_variation
from studies.htc2022.beam_hardening import Calibration, calibrate
from studies.htc2022.data import BINS, TRUTH_SIDE, Arc, Phantom, bin_detector, draw_views, join, read_htc2022, scanner
from studies.htc2022.discs import disc
from studies.htc2022.level_set import level_set_fit
from studies.htc2022.restarts import COUNT, restarts

SIDE, PRIOR_SIDE = 128, 64  # of the level set, FBP and TV; of the restarts
BIN, LEVEL_SET_BIN = 4, 2  # detector bins joined to one
VIEWS, THIN = 20, 2  # views drawn from all of a phantom; every how manieth view of an arc is used
JOINED_SIDE = 256  # of the FBP of all views and of the calibration
SPANS = (30.0, 50.0, 90.0)
SYNTHETIC_SEED = 1  # the prior's discs have seed 0
SYNTHETIC_NOISE, SYNTHETIC_ASSUMED = 0.4, 0.3  # mm, of a bin; of BIN bins, with what coarse pixels get wrong


def score(image: np.ndarray | jax.Array, truth: np.ndarray) -> float:
    """Matthews coefficient of an image [side, side] after Otsu's threshold at the truth's size."""
    large = np.asarray(jax.image.resize(jnp.asarray(image), truth.shape, "linear"))
    return matthews(large > threshold_otsu(large), truth)


def joined_score(phantom: Phantom, side: int) -> float:
    """The score of the FBP of all views."""
    whole = join(phantom.arcs)
    return score(fbp(scanner(whole, side), jnp.asarray(whole.sinogram)), phantom.truth)


def methods(
    arc: Arc, args: argparse.Namespace, prior: Prior | None, calibration: Calibration | None
) -> dict[str, tuple[np.ndarray, float]]:
    """Image and seconds of every method; the arc holds paths in mm, in bins as measured."""

    def noise(arc: Arc) -> float | np.ndarray:
        return calibration.noise(arc.sinogram) if calibration else SYNTHETIC_ASSUMED

    coarse, fine = bin_detector(arc, BIN), bin_detector(arc, LEVEL_SET_BIN)
    operator, y = scanner(coarse, SIDE), jnp.asarray(coarse.sinogram)
    found: dict[str, Any] = {"FBP": timed(operator.start, y)}
    found["TV"] = timed(lambda: total_variation(y[..., None], operator, settings=TV(weight=1.0)).image[..., 0])
    if prior:
        key, count = jax.random.key(args.seed), args.chains * (1 + COUNT)
        # The finer bins of the level set have as much weight together as a coarse one.
        fit = level_set_fit(fine, SIDE, noise=np.sqrt(BIN / LEVEL_SET_BIN) * noise(fine))
        with tqdm(total=count, desc=arc.name, unit="run", leave=False) as bar:
            options: dict[str, Any] = {"noise": noise(coarse), "chains": args.chains, "fit": fit}
            found["TMPD"] = timed(restarts, key, coarse, prior, **options, progress=bar.update)
    return {name: (np.asarray(image), seconds) for name, (image, seconds) in found.items()}


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HTC2022", ""), help="the .npz; or set HTC2022")
    parser.add_argument("--weights", help=f"of a prior of discs of {PRIOR_SIDE} x {PRIOR_SIDE} pixels; for TMPD")
    parser.add_argument("--phantoms", nargs="+", default=["tb"])
    parser.add_argument("--scans", nargs="+", help="only those of these names, such as tb_42_72 and tb_all")
    parser.add_argument("--synthetic", type=int, nargs="+", help="numbers of synthetic discs, instead of the data")
    parser.add_argument("--spans", type=float, nargs="+", default=SPANS, help="degrees of the synthetic arcs")
    parser.add_argument("--chains", type=int, default=8, help="of TMPD, the mean of which is the image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/htc2022"))
    args = parser.parse_args()
    if args.chains < 1:
        raise UserError(f"--chains {args.chains}: at least 1 is needed")
    # not mirrored, as all figures of its page
    prior = load_prior(args.weights, mirror=False) if args.weights else None
    if prior and prior.frame.image_shape != (PRIOR_SIDE, PRIOR_SIDE):
        raise UserError(f"--weights {args.weights}: its images have {prior.frame.image_shape} pixels, not {PRIOR_SIDE}")
    calibration: Calibration | None = None
    about: dict[str, Any] = {"settings": vars(args)}
    if args.synthetic:
        chosen = [(arc, p) for p in synthetic(args.synthetic, args.spans) for arc in p.arcs]
    else:
        phantoms = measured(args)
        joined = about["joined"] = joined_score(phantoms["tb"], JOINED_SIDE)
        print(f"tb, all views joined, FBP: Matthews coefficient {joined:.4f}", flush=True)
        calibration = calibrated(phantoms["tb"])
        about["calibration"] = calibration._asdict()
        print(about["calibration"], flush=True)
        found = [(name, corrected(phantoms[name], calibration)) for name in args.phantoms]
        chosen = [(arc, phantom) for name, phantom in found for arc in scans(name, phantom, args.scans)]
    rows: list[dict[str, Any]] = []
    images: dict[str, np.ndarray] = {}
    for arc, phantom in chosen:
        row: dict[str, Any] = {"scan": arc.name, "degrees": round(arc.degrees, 1), "views": len(arc.angles)}
        for method, (image, seconds) in methods(arc, args, prior, calibration).items():
            row[method] = {"matthews": score(image, phantom.truth), "seconds": seconds}
            images[f"{arc.name}/{method}"] = image
        rows.append(row)
        cells = [f"{v['matthews']:.4f}" if isinstance(v, dict) else f"{v}" for v in row.values()]
        print(f"| {' | '.join(cells)} |", flush=True)
        write_json(args.out / "arcs.json", about | {"rows": rows})  # after every scan: TMPD takes minutes
        write_npz(args.out / "images.npz", images)
        save_figure(args.out / "arcs.png", picture(rows, images), dpi=100)


def measured(args: argparse.Namespace) -> dict[str, Phantom]:
    """The measured phantoms.

    Raises:
      UserError: without data, or for a phantom or scan that is not among them.
    """
    if not args.data:
        raise UserError("no data: give --data FILE, or set HTC2022; studies/htc2022/data.py says what is in it")
    phantoms = read_htc2022(args.data)
    for name in ("tb", *args.phantoms):
        if name not in phantoms:
            raise UserError(f"{args.data}: there is no phantom {name}; it holds {', '.join(phantoms)}")
    there = [arc.name for name in args.phantoms for arc in scans(name, phantoms[name])]
    for name in args.scans or ():
        if name not in there:
            raise UserError(f"--scans {name}: no such scan; --phantoms {' '.join(args.phantoms)}: {', '.join(there)}")
    return phantoms


def calibrated(phantom: Phantom) -> Calibration:
    """Beam hardening and the shift of the detector, from every third view of a phantom."""
    whole = join(phantom.arcs)
    some = bin_detector(whole._replace(angles=whole.angles[::3], sinogram=whole.sinogram[::3]), 2)
    return calibrate(lambda shift: scanner(some._replace(shift=shift), JOINED_SIDE), some.sinogram)


def corrected(phantom: Phantom, calibration: Calibration) -> Phantom:
    """The phantom with paths in mm, and the detector's shift."""
    paths, shift = calibration.paths, calibration.shift
    return phantom._replace(arcs=tuple(a._replace(sinogram=paths(a.sinogram), shift=shift) for a in phantom.arcs))


def scans(name: str, phantom: Phantom, chosen: Sequence[str] | None = None) -> list[Arc]:
    """VIEWS drawn from all arcs of a phantom, NAME_all, and its arcs, thinned; or the chosen ones of these."""
    thinned = [a._replace(angles=a.angles[::THIN], sinogram=a.sinogram[::THIN]) for a in phantom.arcs]
    found = [draw_views(join(phantom.arcs, f"{name}_all"), VIEWS), *thinned]
    return [arc for arc in found if not chosen or arc.name in chosen]


def synthetic(numbers: Sequence[int], spans: Sequence[float]) -> list[Phantom]:
    """Discs of a seed of their own, with an arc of each span from a random angle on, thinned like the measured ones.

    Args:
      numbers: of the discs, from 0 on.
      spans: in degrees.
    """
    phantoms = []
    for index in numbers:
        rng = np.random.default_rng([SYNTHETIC_SEED, index])
        image = disc(SYNTHETIC_SEED, index, side=TRUTH_SIDE)
        arcs = []
        for span in spans:
            angles = np.deg2rad(np.arange(0, span + 0.25, 0.5) + rng.uniform(0, 360))
            rays = scanner(Arc("", angles, np.empty((len(angles), BINS))), TRUTH_SIDE)(jnp.asarray(image))
            values = np.asarray(rays + SYNTHETIC_NOISE * rng.normal(size=rays.shape))
            arcs.append(Arc(f"disc{index}_{span:g}", angles[::THIN], values[::THIN]))
        phantoms.append(Phantom(tuple(arcs), image > 0.5))
    return phantoms


def picture(rows: list[dict[str, Any]], images: dict[str, np.ndarray]) -> Figure:
    """A row of reconstructions for every method, titled with scan and Matthews coefficient; 0 is black, 1 white."""
    names = [name for name in ("FBP", "TV", "TMPD") if name in rows[0]]
    figure = Figure(figsize=(1.75 * len(rows), 2.05 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(rows), squeeze=False)
    for name, line in zip(names, axes, strict=True):
        for row, ax in zip(rows, line, strict=True):
            ax.imshow(images[f"{row['scan']}/{name}"], cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            ax.set_title(f"{row['scan']}\n{name} {row[name]['matthews']:.3f}", fontsize=8)
            ax.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
