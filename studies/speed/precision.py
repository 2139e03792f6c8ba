"""PSNR with the network's convolutions in bfloat16 less that in float32, everything else the same.

    python -m studies.speed.precision                                      slices 41 and 62, 20 levels of DDS, one chain
    python -m studies.speed.precision --slices 20 41 62 83 --solver.levels 50 --solver.average 2       that of sample.py

Other flags are those of sample.py. CPUs emulate bfloat16, so the seconds say nothing about GPUs and TPUs. Writes
precision.json to --out; the exit code is 1 if a difference reaches 0.1 dB.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import one_line_errors
from padis_jax.files import write_json
from padis_jax.images import read_images
from padis_jax.metrics import psnr
from padis_jax.runs.case import simulated_case
from padis_jax.runs.config import Experiment, ImageConfig, SolverConfig
from padis_jax.runs.defaults import plan_of, tv_of
from padis_jax.runs.score import score
from padis_jax.runs.solve import run_solver, run_tv, timed, with_prior
from padis_jax.weights import load_weights

LIMIT = 0.1  # dB
QUICK = Experiment(solver=SolverConfig(levels=20, average=1))


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--slices", type=int, nargs="+", default=[41, 62])
    parser.add_argument("--out", type=Path, default=Path("results/precision"))
    args, rest = parser.parse_known_args()
    base = parse_experiment(rest, default=QUICK, prog="studies.speed.precision", description=__doc__ or "")
    images, weights = read_images(base.image.path), load_weights(base.weights)
    rows = []
    for index in args.slices:
        config = dataclasses.replace(base, image=ImageConfig(base.image.path, index))
        case = simulated_case(config, images)
        plan = plan_of(config, case.kind, case.measurement)
        tv = run_tv(case, tv_of(config, case.kind, case.task))
        found, seconds = {}, {}
        for compute in ("float32", "bfloat16"):
            ready = with_prior(config, case, weights.computing(compute))
            solved, seconds[compute] = timed(run_solver, config, ready, plan, tv)
            found[compute] = solved.image
        decibels = {c: score(c, image, case).psnr for c, image in found.items()}
        row = {
            "slice": index,
            **decibels,
            "difference": decibels["bfloat16"] - decibels["float32"],
            "psnr_of_one_against_the_other": float(psnr(*(jnp.clip(jnp.asarray(i), 0, 1) for i in found.values()))),
            "seconds": seconds,
        }
        rows.append(row)
        print(
            f"slice {index}: float32 {row['float32']:.3f} dB, bfloat16 {row['bfloat16']:.3f} dB, difference "
            f"{row['difference']:+.4f} dB; {seconds['float32']:.0f} s and {seconds['bfloat16']:.0f} s",
            flush=True,
        )
    worst = float(np.max(np.abs([row["difference"] for row in rows])))
    print(f"largest difference {worst:.4f} dB, allowed is less than {LIMIT}")
    write_json(args.out / "precision.json", {"experiment": base, "rows": rows})
    if worst >= LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
