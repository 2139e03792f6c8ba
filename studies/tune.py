"""Finds settings on validation images: slices 30 and 73 of the head CT (never its test slices), or images you name.

    python -m studies.tune --method tv --vary tv.weight 0.003 0.01 0.03 0.1 0.3
    python -m studies.tune --vary solver.sigma-max 0.05 0.1 0.2 --vary solver.weight 0.001 0.003 --scan.protocol paper
    python -m studies.tune --vary solver.zeta 0.3 1 3 --solver dps --solver.levels 60 --solver.inner 5
    python -m studies.tune --problem deblur9 --image.path data/photos.npy --slices 132 \\
        --weights weights/photos_two.safetensors --solver pnp_admm --vary solver.weight 0.01 0.03 0.1
    python -m studies.tune --scan.protocol paper --each solver.levels --vary solver.levels 5 10 25 50 \\
        --vary solver.sigma-min 0.01 0.02

Every combination of the --vary values is run on every slice; other flags are those of sample.py. Prints a line per
combination as it is done, the best one last (with --each FIELD the best of each of its values: a curve), and writes all
of it as JSON. It is up to you that the images you name are not trained on. docs/studies/tune.md has what was found.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_json
from padis_jax.images import read_images
from padis_jax.runs.case import simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import first_image, plan_of
from padis_jax.runs.prior import with_prior
from padis_jax.runs.score import score
from padis_jax.runs.solve import run_solver, run_tv, timed
from padis_jax.split import HEAD_CT_VALIDATION, is_head_ct
from padis_jax.weights import load_weights


@one_line_errors()
def main() -> None:
    """Runs the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("solver", "tv"), default="solver")
    parser.add_argument("--vary", nargs="+", action="append", default=[], metavar=("FIELD", "VALUE"))
    parser.add_argument("--each", default="", metavar="FIELD", help="of --vary: print the best of each of its values")
    parser.add_argument("--slices", type=int, nargs="+", default=[], help="of --image.path; of the head CT 30 73")
    parser.add_argument("--out", type=Path, default=Path("results/tune.json"))
    args, rest = parser.parse_known_args()
    if args.each and args.each not in (choice[0] for choice in args.vary):
        raise UserError(f"--each {args.each}: is not varied; give --vary {args.each} with its values")
    base = parse_experiment(
        rest, default=first_image(Experiment(), rest), prog="studies.tune", description=__doc__ or ""
    )
    if is_head_ct(base.image.path):
        args.slices = args.slices or list(HEAD_CT_VALIDATION)
        if set(args.slices) - set(HEAD_CT_VALIDATION):
            raise UserError(
                f"--slices {args.slices}: settings are tuned on the validation slices {HEAD_CT_VALIDATION} only"
            )
    elif not args.slices:
        raise UserError(f"--slices: name the images of {base.image.path} that nothing is trained or tested on")
    images, weights = read_images(base.image.path), load_weights(base.weights) if args.method == "solver" else None
    baselines: dict[Any, Any] = {}
    found: list[dict[str, Any]] = []
    for values in itertools.product(*(choice[1:] for choice in args.vary)):
        flags = [word for choice, value in zip(args.vary, values, strict=True) for word in (f"--{choice[0]}", value)]
        rows = []
        for index in args.slices:
            words = [*rest, *flags, "--image.index", str(index)]
            config = parse_experiment(words, default=base, prog="studies.tune", description="")
            case = simulated_case(config, images)
            plan = plan_of(config, case.kind, case)
            if weights is not None:
                case = with_prior(config, case, weights)
            key = (config.tv, config.image, config.scan)
            if key not in baselines:
                baselines[key] = timed(run_tv, config, case)
            tv, tv_seconds = baselines[key]
            if weights is None:
                rows.append(score("TV", tv, case, seconds=tv_seconds))
                continue
            solved, seconds = timed(run_solver, config, case, plan, tv)
            rows.append(score(plan.method, solved.image, case, evaluations=solved.evaluations, seconds=seconds))
        mean = float(np.mean([r.psnr for r in rows]))
        found.append({"flags": flags, "mean_psnr": mean, "rows": [r.shown() for r in rows]})
        each = ", ".join(f"{r.psnr:.2f}" for r in rows)
        print(f"{mean:6.2f} dB  ({each}; {np.mean([r.seconds for r in rows]):.0f} s)  {' '.join(flags)}", flush=True)
    write_json(args.out, {"base": base, "slices": args.slices, "found": found})
    for best in best_of(found, args.each):
        print(f"best: {' '.join(best['flags'])}  {best['mean_psnr']:.2f} dB")


def best_of(found: Sequence[dict[str, Any]], each: str = "") -> list[dict[str, Any]]:
    """The combination of the highest mean PSNR; of each value of the field `each`, if one is named, in their order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for combination in found:
        flags = combination["flags"]
        groups.setdefault(flags[flags.index(f"--{each}") + 1] if each else "", []).append(combination)
    return [max(group, key=lambda f: f["mean_psnr"]) for group in groups.values()]


if __name__ == "__main__":
    main()
