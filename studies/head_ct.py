"""Methods on held-out slices of the head CT, and evidence that the prior does not remember: docs/studies/head_ct.md.

    python -m studies.head_ct                              no inverse crime (--scan.protocol honest)
    python -m studies.head_ct --scan.protocol paper
    python -m studies.head_ct --seeds 0 1 --solver.levels 25
    python -m studies.head_ct --scan.protocol paper --distances --solver dds --solver.average 1

The last takes every left-out slice and prints the median PSNR by distance to the nearest training slice. Other flags
are those of sample.py. Rows: FBP, TV, the mean of the two nearest training slices (what memory alone could give) and
the solver. With several seeds, which draw noise and tilings, the cells are means over them. Writes a JSON file and a
picture of every slice to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import one_line_errors
from padis_jax.figures import comparison, save_figure
from padis_jax.files import write_json
from padis_jax.images import ImageSet, read_images
from padis_jax.runs.config import Experiment
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.outcome import reconstruct_image
from padis_jax.runs.score import Row, score
from padis_jax.split import Split, split_slices
from padis_jax.weights import load_weights

NEAREST = "nearest training slices"


@one_line_errors()
def main() -> None:
    """Prints the table, or the medians by distance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--slices", type=int, nargs="+", help="slices to reconstruct; the four test slices without it")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="root keys, whose means are shown; that of --seed without it"
    )
    parser.add_argument("--distances", action="store_true", help="all left-out slices, medians by distance")
    parser.add_argument("--out", type=Path, default=Path("results/head_ct"))
    args, rest = parser.parse_known_args()
    base = parse_experiment(rest, default=Experiment(), prog="studies.head_ct", description=__doc__ or "")

    images, weights = read_images(base.image.path), load_weights(base.weights)
    split = split_slices(len(images.names))
    left_out = sorted({*split.test, *split.validation, *split.gap})
    slices = args.slices or (left_out if args.distances else split.test)
    protocol = base.scan.protocol
    rows: dict[int, list[Row]] = {}
    runs: list[dict[str, Any]] = []
    for index in tqdm(slices, desc="slices"):
        found = []
        for seed in args.seeds or [base.seed]:
            config = dataclasses.replace(base, image=ImageConfig(index=index), seed=seed)
            case, outcome = reconstruct_image(config, images, weights)
            *simple, solver = outcome.rows
            found.append([*simple, score(NEAREST, nearest_mean(images, split, index), case), solver])
            runs += [{"slice": index, "seed": seed, **row.shown()} for row in found[-1]]
        rows[index] = [mean_row(same) for same in zip(*found, strict=True)]
        figure = comparison(case.source.images[0], outcome.images, window=case.window, origin=case.origin)
        save_figure(args.out / f"{protocol}_slice{index}.png", figure)
    name = f"{protocol}_{base.scan.photons:g}" if protocol == "honest" else protocol
    name += "_distances" if args.distances else ""
    write_json(
        args.out / f"{name}.json",
        {
            "experiment": base,
            "weights_sha256": weights.digest,
            "rows": {str(i): [r.shown() for r in found] for i, found in rows.items()},
            "runs": runs,
            "distance": {str(i): split.distance(i) for i in rows},
        },
    )
    print(medians(rows, split) if args.distances else markdown(rows))


def mean_row(rows: Sequence[Row]) -> Row:
    """The means of the numbers of one method's rows."""
    numbers = zip(*(row[1:] for row in rows), strict=True)
    return Row._make([rows[0].method, *(float(np.mean(values)) for values in numbers)])


def nearest_mean(images: ImageSet, split: Split, index: int) -> np.ndarray:
    """The mean of the nearest training slice on either side (of the nearest two, at an end of the volume)."""
    below = [i for i in split.train if i < index][-1:]
    above = [i for i in split.train if i > index][:1]
    nearest = below + above if below and above else sorted(split.train, key=lambda i: abs(i - index))[:2]
    return np.asarray(images.images[nearest].mean(0))


def medians(rows: dict[int, list[Row]], split: Split) -> str:
    """Of the PSNR of every method, by the distance to the nearest training slice."""
    distances = np.asarray([split.distance(index) for index in rows])
    steps = sorted(set(distances.tolist()))
    lines = [f"| distance | {' | '.join(map(str, steps))} |", "|---" * (len(steps) + 1) + "|"]
    for position, method in enumerate(r.method for r in next(iter(rows.values()))):
        psnr = np.asarray([found[position].psnr for found in rows.values()])
        cells = [f"{np.median(psnr[distances == step]):.1f} dB" for step in steps]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown(rows: dict[int, list[Row]]) -> str:
    """PSNR / SSIM / RMSE per slice and their means."""
    lines = ["| method | " + " | ".join(f"slice {i}" for i in rows) + " | mean |", "|---" * (len(rows) + 2) + "|"]
    for position, method in enumerate(r.method for r in next(iter(rows.values()))):
        found = [rs[position] for rs in rows.values()]
        cells = [f"{r.psnr:.2f} dB, {r.ssim:.3f}, {r.rmse:.0f} HU" for r in found]
        psnr, ssim, rmse, seconds = (
            np.mean([getattr(r, k) for r in found]) for k in ("psnr", "ssim", "rmse", "seconds")
        )
        cells.append(f"**{psnr:.2f} dB**, {ssim:.3f}, {rmse:.0f} HU ({seconds:.0f} s)")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
