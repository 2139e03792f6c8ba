"""Whether a prior that is adapted to one measurement reconstructs it better: docs/studies/adaptation.md.

    python -m studies.adaptation --brain ch2.nii.gz --dry-run
    python -m studies.adaptation --brain ch2.nii.gz
    python -m studies.adaptation --brain ch2.nii.gz --only 'brain_head/*' --images 2

20 views without noise, by plug-and-play from the image of total variation. Pairs of images (`studies.other_images`) and
prior: head_head (matched), brain_head and head_photos. Ways: plain, 25 evaluations; longer, as many as adaptation takes
in all; adapted, all layers (`studies.adapt`), then 25; last, the same with the last layers alone. Every image of a way
has a file in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from padis_jax.benchmark.measure import Scene, stopwatch
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes, write_json
from padis_jax.prior import Prior
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.score import score
from padis_jax.runs.solve import TV_ROW, rows_of
from padis_jax.solvers.presets import preset
from padis_jax.split import spread
from studies.adapt import Adaptation, adapt
from studies.cells import digest_of, known
from studies.grey_prior import prior_of
from studies.other_data import resampled
from studies.other_images import Images, brain, head

PROBLEM, SOLVER, EVALUATIONS = "ct20", "pnp_admm", 25
GRADIENT = 4  # evaluations that a step with its gradient takes, in chunks
PAIRS = {"head_head": ("head", "head"), "brain_head": ("brain", "head"), "head_photos": ("head", "photos")}
WAYS = ("plain", "longer", "adapted", "last")
LAST = ("dec0",)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Computes what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brain", default="ch2.nii.gz", help="the T1 volume")
    parser.add_argument("--head-weights", default="weights/head_ct.safetensors")
    parser.add_argument("--photos-weights", default="photos")
    parser.add_argument("--only", action="append", metavar="PAIR/WAY", help="with * and ?; may be repeated")
    parser.add_argument("--images", type=int, default=4, help="of each set, evenly spread")
    parser.add_argument("--levels", type=int, default=Adaptation.levels)
    parser.add_argument("--steps", type=int, default=Adaptation.steps, help="on each level")
    parser.add_argument("--learning-rate", type=float, default=Adaptation.learning_rate)
    parser.add_argument("--patch-batch", type=int, default=9, help="patches at a time, which bounds the memory")
    parser.add_argument("--seed", type=int, default=0, help="of noise and tilings; each seed has a folder of its own")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/adaptation"))
    args = parser.parse_args(argv)
    chosen = ways(args.only)
    made: dict[str, Callable[[], Images]] = {"brain": lambda: brain(args.brain), "head": head}
    images = {name: made[name]() for name in dict.fromkeys(PAIRS[pair][0] for pair, _ in chosen)}
    settings = Adaptation(levels=args.levels, steps=args.steps, learning_rate=args.learning_rate)
    own = {pair: images[PAIRS[pair][0]] for pair, _ in chosen}
    jobs = [(pair, way, number) for pair, way in chosen for number in spread(len(own[pair].groups), args.images)]
    jobs.sort(key=lambda job: (list(PAIRS).index(job[0]), job[2]))  # all ways of an image in a row
    missing = [job for job in jobs if finished(args, own[job[0]], *job) is None]
    print(
        f"{len(missing)} of {len(jobs)} images are missing (into {args.out}); adapting takes "
        f"{spent(settings)} evaluations"
    )
    try:
        if not args.dry_run:
            _compute(args, settings, images, missing)
    finally:
        text = table(args, images, chosen)
        if text:
            write_bytes(folder(args) / "table.md", text.encode())
            print(text)


def ways(only: Sequence[str] | None) -> list[tuple[str, str]]:
    """(pair, way), or those that a pattern names.

    Raises:
      UserError: for a pattern that names none.
    """
    every = [(pair, way) for pair in PAIRS for way in WAYS]
    names = {f"{pair}/{way}": (pair, way) for pair, way in every}
    for pattern in only or ():
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--only {pattern}: names nothing; there are {', '.join(names)}")
    return [names[n] for n in names if not only or any(fnmatch.fnmatchcase(n, pattern) for pattern in only)]


def spent(settings: Adaptation) -> int:
    """Evaluations of the image that an adaptation costs."""
    return settings.levels * (GRADIENT * settings.steps + 1)


def folder(args: argparse.Namespace) -> Path:
    """Of the settings of the adaptation."""
    name = f"levels{args.levels}_steps{args.steps}_rate{args.learning_rate:g}"
    return Path(args.out / (f"{name}_seed{args.seed}" if args.seed else name))


def place(args: argparse.Namespace, images: Images, pair: str, way: str, number: int) -> Path:
    """The file of an image of a way."""
    return folder(args) / "cells" / pair / way / f"{images.pictures.names[number]}.json"


def described(args: argparse.Namespace, images: Images, pair: str, number: int) -> dict[str, Any]:
    """What an image of a way depends on beside the settings in its path."""
    weights = {"photos": args.photos_weights, "head": args.head_weights}[PAIRS[pair][1]]
    return {
        "image_sha256": images.pictures.digest(number),
        "weights_sha256": digest_of(weights),
        "patch_batch": args.patch_batch,  # it sums in another order
        "mirror": "as trained",
        "plan": preset(SOLVER, PROBLEMS[PROBLEM].kind, EVALUATIONS).described(),
    }


def finished(args: argparse.Namespace, images: Images, pair: str, way: str, number: int) -> dict[str, Any] | None:
    """The scores of an image of a way, if they are there."""
    return known(place(args, images, pair, way, number), described(args, images, pair, number))


def _compute(
    args: argparse.Namespace,
    settings: Adaptation,
    images: dict[str, Images],
    missing: Sequence[tuple[str, str, int]],
) -> None:
    paths = {"photos": args.photos_weights, "head": args.head_weights}
    scene: Scene | None = None
    at: tuple[str, int] | None = None
    priors: dict[str, Prior] = {}
    for pair, way, number in tqdm(missing, desc="images", unit="image"):
        name, of = PAIRS[pair]
        if scene is None or at != (name, number):
            operator = scene.case.operator if scene is not None else None
            scene, at = Scene(PROBLEM, images[name].pictures, number, args.seed, operator), (name, number)
        if pair not in priors:
            priors[pair] = prior_of(paths[of], images[name], args.patch_batch)
        row, about = cell(way, scene, priors[pair], settings), described(args, images[name], pair, number)
        write_json(place(args, images[name], pair, way, number), {"about": about, "row": row})


def cell(way: str, scene: Scene, prior: Prior, settings: Adaptation) -> dict[str, Any]:
    """Scores, seconds without compilation, and the losses of an adaptation."""
    found: dict[str, Any] = {"losses": []}
    tv = scene.tv()[0]
    evaluations = EVALUATIONS + (spent(settings) if way == "longer" else 0)
    with stopwatch() as clock:
        if way in ("adapted", "last"):
            own = settings if way == "adapted" else dataclasses.replace(settings, layers=LAST)
            result = adapt(
                jax.random.key(scene.config.seed), prior, scene.case.operator, scene.case.measurement.y, tv, own
            )
            prior, found["losses"] = result.prior, np.asarray(result.losses).ravel().tolist()
        plan = preset(SOLVER, PROBLEMS[PROBLEM].kind, evaluations)
        *_, run = rows_of(scene.config, dataclasses.replace(scene.case, prior=prior), plan).values()
        image = np.asarray(jax.block_until_ready(run({TV_ROW: tv}).image))
    row, smooth = score(way, image, scene.case), score("tv", np.asarray(tv), scene.case)
    about = {"psnr": row.psnr, "ssim": row.ssim, "residual": row.residual, "tv_psnr": smooth.psnr}
    return about | found | {"seconds": clock.seconds, "evaluations": plan.evaluations}


def table(args: argparse.Namespace, images: dict[str, Images], chosen: Sequence[tuple[str, str]]) -> str:
    """A row for each pair and way; "" where nothing is finished."""
    lines = []
    for pair in dict.fromkeys(pair for pair, _ in chosen):
        own = images[PAIRS[pair][0]]
        groups = dict(zip(own.pictures.names, own.groups, strict=True))
        cells = {
            way: {
                name: row
                for number, name in enumerate(own.pictures.names)
                if (row := finished(args, own, pair, way, number)) is not None
            }
            for way in WAYS
        }
        for way, found in cells.items():
            if not found:
                continue
            paired = {n: c["psnr"] - cells["plain"][n]["psnr"] for n, c in found.items() if n in cells["plain"]}
            less = resampled(paired, groups) if paired and way != "plain" else ""
            psnr, ssim, residual, tv = (
                np.mean([c[what] for c in found.values()]) for what in ("psnr", "ssim", "residual", "tv_psnr")
            )
            seconds = np.median([c["seconds"] for c in found.values()])
            lines.append(
                f"| {pair} | {way} | {len(found)} | {tv:.2f} | {psnr:.2f} | {less} | {ssim:.3f} | {residual:.1e} | "
                f"{seconds:.0f} |"
            )
    if not lines:
        return ""
    head_line = "| images_prior | way | images | TV | PSNR (dB) | less plain (dB, 95 %) | SSIM | residual | seconds |"
    return "\n".join([head_line, "|---" * 9 + "|", *lines]) + "\n"


if __name__ == "__main__":
    main()
