"""Photographs, brain MRI and priors out of their distribution: docs/studies/other_data.md.

    python -m studies.other_data --photos data/photos --brain ch2.nii.gz --dry-run     what there is to do
    python -m studies.other_data --photos data/photos --brain ch2.nii.gz
    python -m studies.other_data --brain ch2.nii.gz --only 'brain/ct20/*'              a part

Sets are those of `studies.other_images`, twelve images each. A field is SET/PROBLEM/METHOD: problems ct20, deblur9,
sr4, inpaint_free10, 25 and 50 and inpaint_strokes of docs/problems.md; methods start, tv, and plug-and-play and DDS
with the prior `photos` or that of the head, 25 evaluations, presets; two seeds, whose mean counts. Images have one
channel but in the set `photographs`: on one channel `photos` is the prior of grey colour images
(`studies.grey_prior`), and the head's prior is not run on colour. Every image of a field has a file in --out: rerun the
same command to resume. The tables are written whenever it ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from padis_jax.benchmark.measure import Scene, stopwatch
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes, write_json
from padis_jax.prior import Prior
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.score import score
from padis_jax.runs.solve import TV_ROW, rows_of, run_start
from padis_jax.solvers.presets import preset
from padis_jax.split import spread
from studies.cells import digest_of, known
from studies.grey_prior import prior_of
from studies.other_images import Images, brain, head, photographs

PROBLEM_NAMES = ("ct20", "deblur9", "sr4", "inpaint_free10", "inpaint_free25", "inpaint_free50", "inpaint_strokes")
SOLVERS = ("pnp_admm", "dds")
PRIORS = {
    "photographs": ("photos",),
    "grey": ("photos", "head"),
    "brain": ("photos", "head"),
    "head": ("photos", "head"),
}
EVALUATIONS = 25
RESAMPLES = 10_000


class Field(NamedTuple):
    """A method on a problem of a set: `solver` with a `prior`, or start and tv with none."""

    set: str
    problem: str
    solver: str
    prior: str = ""

    @property
    def method(self) -> str:
        """Its name in tables and files."""
        return f"{self.solver}_{self.prior}" if self.prior else self.solver

    @property
    def name(self) -> str:
        """SET/PROBLEM/METHOD."""
        return f"{self.set}/{self.problem}/{self.method}"


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Computes what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="data/photos", help="folder of studies.photos")
    parser.add_argument("--brain", default="ch2.nii.gz", help="the T1 volume")
    parser.add_argument("--head-weights", default="weights/head_ct.safetensors")
    parser.add_argument("--photos-weights", default="photos")
    parser.add_argument("--only", action="append", metavar="SET/PROBLEM/METHOD", help="with * and ?; may be repeated")
    parser.add_argument("--images", type=int, default=0, help="of each set, evenly spread; 0 for all twelve")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of masks, noise and samplers")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/other_data"))
    args = parser.parse_args(argv)
    chosen = fields(args.only)
    sets = sorted({field.set for field in chosen}, key=list(PRIORS).index)
    made: dict[str, Callable[[], Images]] = {
        "photographs": lambda: photographs(args.photos),
        "grey": lambda: photographs(args.photos, grey=True),
        "brain": lambda: brain(args.brain),
        "head": head,
    }
    images = {name: made[name]() for name in sets}
    print(cost(args, chosen, images))
    try:
        if not args.dry_run:
            _compute(args, chosen, images)
    finally:
        text = table(args, chosen, images)
        if text:
            write_bytes(args.out / "table.md", text.encode())
            print(text)


def fields(only: Sequence[str] | None) -> list[Field]:
    """The fields of the study, or those that one of the patterns names.

    Raises:
      UserError: for a pattern that names none.
    """
    every = []
    for name, priors in PRIORS.items():
        for problem in PROBLEM_NAMES:
            if name == "photographs" and PROBLEMS[problem].tomography:
                continue  # of colour
            every += [Field(name, problem, "start"), Field(name, problem, "tv")]
            every += [Field(name, problem, solver, prior) for prior in priors for solver in SOLVERS]
    for pattern in only or ():
        if not any(fnmatch.fnmatchcase(field.name, pattern) for field in every):
            raise UserError(f"--only {pattern}: names no field; there are {', '.join(field.name for field in every)}")
    return [f for f in every if not only or any(fnmatch.fnmatchcase(f.name, pattern) for pattern in only)]


def place(out: Path, field: Field, image: str, seed: int) -> Path:
    """The file of an image of a field."""
    return out / "cells" / field.name / f"{image}_{seed}.json"


def described(args: argparse.Namespace, field: Field, images: Images, number: int) -> dict[str, Any]:
    """What an image of a field depends on."""
    about: dict[str, Any] = {"image_sha256": images.pictures.digest(number)}
    if field.prior:
        weights = {"photos": args.photos_weights, "head": args.head_weights}[field.prior]
        plan = preset(field.solver, PROBLEMS[field.problem].kind, args.evaluations)
        about |= {"weights_sha256": digest_of(weights), "mirror": "as trained", "plan": plan.described()}
    return about


def finished(args: argparse.Namespace, field: Field, images: Images, number: int, seed: int) -> dict[str, Any] | None:
    """The scores of an image of a field, if they are there."""
    return known(place(args.out, field, images.pictures.names[number], seed), described(args, field, images, number))


def _compute(args: argparse.Namespace, chosen: Sequence[Field], images: Mapping[str, Images]) -> None:
    paths = {"photos": args.photos_weights, "head": args.head_weights}
    scenes = [
        (seed, number, [f for f in chosen if (f.set, f.problem) == (name, problem)])
        for seed in args.seeds
        for name in images
        for problem in PROBLEM_NAMES
        for number in numbers(images[name], args.images)
    ]
    with tqdm(total=sum(len(own) for *_, own in scenes), desc="images", unit="image") as bar:
        operators: dict[str, Any] = {}
        priors: dict[str, Prior] = {}
        for seed, number, own in scenes:
            missing = [f for f in own if finished(args, f, images[f.set], number, seed) is None]
            bar.update(len(own) - len(missing))
            if not missing:
                continue
            name, problem = missing[0].set, missing[0].problem
            found = images[name]
            key = f"{found.pictures.shape}/{problem}"
            scene = Scene(problem, found.pictures, number, seed, operators.get(key))
            if PROBLEMS[problem].tomography:
                operators[key] = scene.case.operator  # the geometry is that of every image
            for field in missing:
                bar.set_description(f"{field.name} {found.pictures.names[number]} {seed}")
                which = f"{name}/{field.prior}"
                if field.prior and which not in priors:
                    priors[which] = prior_of(paths[field.prior], found)
                row = cell(field, scene, priors.get(which), args.evaluations)
                about = described(args, field, found, number)
                write_json(place(args.out, field, found.pictures.names[number], seed), {"about": about, "row": row})
                bar.update()


def cell(field: Field, scene: Scene, prior: Prior | None, evaluations: int) -> dict[str, Any]:
    """Scores and seconds (without compilation; of a solver without those of total variation, its start)."""
    plan = preset(field.solver, PROBLEMS[field.problem].kind, evaluations) if prior is not None else None
    before = {TV_ROW: scene.tv()[0]} if plan is not None and plan.start == "tv" else {}
    with stopwatch() as clock:
        if plan is not None:
            *_, run = rows_of(scene.config, dataclasses.replace(scene.case, prior=prior), plan).values()
            found = run(before).image
        else:
            found = scene.tv()[0] if field.solver == "tv" else run_start(scene.case)
        image = np.asarray(jax.block_until_ready(found))
    seconds = scene.tv()[1] if field.solver == "tv" else clock.seconds
    row = score(field.method, image, scene.case)
    evaluated = plan.evaluations if plan is not None else 0
    return {"psnr": row.psnr, "ssim": row.ssim, "residual": row.residual, "seconds": seconds, "evaluations": evaluated}


def cost(args: argparse.Namespace, chosen: Sequence[Field], images: Mapping[str, Images]) -> str:
    """How many are missing, and what they take by the medians of those that are there."""
    missing: list[Field] = []
    seconds: dict[tuple[str, str], list[float]] = {}
    for field in chosen:
        for seed, number in itertools.product(args.seeds, numbers(images[field.set], args.images)):
            row = finished(args, field, images[field.set], number, seed)
            if row is None:
                missing.append(field)
            else:
                seconds.setdefault((field.problem, field.solver), []).append(row["seconds"])
    known = [np.median(seconds[key]) for f in missing if (key := (f.problem, f.solver)) in seconds]
    text = f"{len(missing)} images of fields are missing"
    if known:
        text += f"; about {sum(known) / 60:.0f} minutes for {len(known)} of them, by those that are finished"
    return f"{text} (into {args.out})"


def table(args: argparse.Namespace, chosen: Sequence[Field], images: Mapping[str, Images]) -> str:
    """A table for each set and problem; "" where nothing is finished."""
    lines: list[str] = []
    for name, problem in dict.fromkeys((f.set, f.problem) for f in chosen):
        own = [f for f in fields(None) if (f.set, f.problem) == (name, problem)]
        found = {f: _rows(args, f, images[name]) for f in own}
        if not any(found.values()):
            continue
        groups = dict(zip(images[name].pictures.names, images[name].groups, strict=True))
        tv = found[Field(name, problem, "tv")]
        lines += [f"### {images[name].pictures.title}, {problem}", ""]
        lines += ["| method | images | PSNR (dB) | SSIM | less TV (dB, 95 %) | seconds |", "|---|---|---|---|---|---|"]
        for field, cells in found.items():
            if not cells:
                continue
            means = [np.mean([c[what] for c in cells.values()]) for what in ("psnr", "ssim")]
            paired = {image: c["psnr"] - tv[image]["psnr"] for image, c in cells.items() if image in tv}
            less = "" if field.solver == "tv" or not paired else resampled(paired, groups)
            time = np.median([c["seconds"] for c in cells.values()])
            lines.append(f"| {field.method} | {len(cells)} | {means[0]:.2f} | {means[1]:.3f} | {less} | {time:.0f} |")
        lines.append("")
    return "\n".join(lines)


def resampled(differences: Mapping[str, float], groups: Mapping[str, str], seed: int = 0) -> str:
    """Mean over images with the 95 % interval of the bootstrap over groups: pictures are drawn, images follow them."""
    names = sorted({groups[image] for image in differences})
    own = [[d for image, d in differences.items() if groups[image] == name] for name in names]
    sums, counts = np.asarray([sum(d) for d in own]), np.asarray([len(d) for d in own])
    mean = sums.sum() / counts.sum()
    if len(names) < 2:
        return f"{mean:+.2f}"
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _rows(args: argparse.Namespace, field: Field, images: Images) -> dict[str, dict[str, Any]]:
    """The scores of each image that is finished with all seeds, their means."""
    found = {}
    for number, name in enumerate(images.pictures.names):
        rows = [finished(args, field, images, number, seed) for seed in args.seeds]
        kept = [row for row in rows if row is not None and row["psnr"] is not None]
        if len(kept) == len(rows):
            found[name] = {what: float(np.mean([row[what] for row in kept])) for what in ("psnr", "ssim", "seconds")}
    return found


def numbers(images: Images, count: int) -> tuple[int, ...]:
    """Of the images that are taken: `count` of them, evenly spread; all for 0."""
    return spread(len(images.groups), count or len(images.groups))


if __name__ == "__main__":
    main()
