"""The figures of the README: methods on held-out slices of the head CT, and evidence that the prior does not remember.

    python -m studies.head_ct                              honest protocol
    python -m studies.head_ct --scan.protocol paper
    python -m studies.head_ct --scan.protocol paper --distances --solver.average 1

The last takes every left-out slice and draws PSNR against the distance to the nearest training slice. Other flags are
those of sample.py. Rows: FBP, TV, the mean of the two nearest training slices (what memory alone could give) and the
diffusion solver. Writes a JSON file, a Markdown table and a picture of every slice to --out.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import one_line_errors
from padis_jax.figures import comparison, psnr_against_distance, save_figure
from padis_jax.files import write_bytes, write_json
from padis_jax.images import ImageSet, read_images
from padis_jax.runs.config import Experiment, ImageConfig
from padis_jax.runs.outcome import reconstruct_image
from padis_jax.runs.score import Row, score
from padis_jax.split import Split, split_slices
from padis_jax.weights import load_weights

NEAREST = "nearest training slices"


@one_line_errors()
def main() -> None:
    """Runs the table or the distance plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--slices", type=int, nargs="+", help="slices to reconstruct; the four test slices without it")
    parser.add_argument("--distances", action="store_true", help="all left-out slices, and the plot against distance")
    parser.add_argument("--out", type=Path, default=Path("results/head_ct"))
    args, rest = parser.parse_known_args()
    base = parse_experiment(rest, default=Experiment(), prog="studies.head_ct", description=__doc__ or "")

    images, weights = read_images(base.image.path), load_weights(base.weights)
    split = split_slices(len(images.names))
    left_out = sorted({*split.test, *split.validation, *split.gap})
    slices = args.slices or (left_out if args.distances else split.test)
    protocol = base.scan.protocol
    rows: dict[int, list[Row]] = {}
    for index in tqdm(slices, desc="slices"):
        config = dataclasses.replace(base, image=ImageConfig(index=index))
        case, outcome = reconstruct_image(config, images, weights)
        *simple, solver = outcome.rows
        rows[index] = [*simple, score(NEAREST, nearest_mean(images, split, index), case), solver]
        figure = comparison(case.source.images[0], outcome.images, window=case.window, origin=case.origin)
        save_figure(args.out / f"{protocol}_slice{index}.png", figure)
    name = f"{protocol}_{base.scan.photons:g}" if protocol == "honest" else protocol
    name += "_distances" if args.distances else ""
    text = markdown(rows)
    write_bytes(args.out / f"{name}.md", text.encode())
    write_json(
        args.out / f"{name}.json",
        {
            "experiment": base,
            "weights_sha256": weights.digest,
            "rows": {str(i): [r.shown() for r in found] for i, found in rows.items()},
            "distance": {str(i): split.distance(i) for i in rows},
        },
    )
    if args.distances:
        save_figure(args.out / f"{name}.png", distance_plot(rows, split))
    print(text)


def nearest_mean(images: ImageSet, split: Split, index: int) -> np.ndarray:
    """The mean of the nearest training slice on either side (of the nearest two, at an end of the volume)."""
    below = [i for i in split.train if i < index][-1:]
    above = [i for i in split.train if i > index][:1]
    nearest = below + above if below and above else sorted(split.train, key=lambda i: abs(i - index))[:2]
    return np.asarray(images.images[nearest].mean(0))


def distance_plot(rows: dict[int, list[Row]], split: Split) -> Any:
    """PSNR of every method against the distance to the nearest training slice."""
    distance = [split.distance(index) for index in rows]
    methods = [r.method for r in next(iter(rows.values()))]
    found = {m: [rs[i].psnr for rs in rows.values()] for i, m in enumerate(methods)}
    return psnr_against_distance(distance, found)


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
