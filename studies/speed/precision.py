"""PSNR with the network's convolutions in bfloat16 less that in float32, everything else the same.

    python -m studies.speed.precision                                      slices 41 and 62, 20 levels of DDS, one chain
    python -m studies.speed.precision --slices 20 41 62 83 --solver.levels 50 --solver.average 2

Other flags are those of sample.py. CPUs emulate bfloat16, so the seconds say nothing about GPUs and TPUs.
"""

from __future__ import annotations

import argparse
import dataclasses

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import one_line_errors
from padis_jax.images import read_images
from padis_jax.runs.case import simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import plan_of
from padis_jax.runs.image_config import ImageConfig
from padis_jax.runs.prior import with_prior
from padis_jax.runs.score import score
from padis_jax.runs.solve import run_solver, run_tv, timed
from padis_jax.runs.solver_config import SolverConfig
from padis_jax.weights import load_weights

QUICK = Experiment(solver=SolverConfig("dds", levels=20, average=1))


@one_line_errors()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--slices", type=int, nargs="+", default=[41, 62])
    args, rest = parser.parse_known_args()
    base = parse_experiment(rest, default=QUICK, prog="studies.speed.precision", description=__doc__ or "")
    images, weights = read_images(base.image.path), load_weights(base.weights)
    for index in args.slices:
        config = dataclasses.replace(base, image=ImageConfig(base.image.path, index))
        case = simulated_case(config, images)
        plan = plan_of(config, case.kind, case)
        tv = run_tv(config, case)
        decibels, took = [], []
        for compute in ("float32", "bfloat16"):
            solved, seconds = timed(run_solver, config, with_prior(config, case, weights.computing(compute)), plan, tv)
            decibels.append(score(compute, solved.image, case).psnr)
            took.append(seconds)
        print(
            f"slice {index}: float32 {decibels[0]:.3f} dB, bfloat16 {decibels[1]:.3f} dB, difference "
            f"{decibels[1] - decibels[0]:+.4f} dB; {took[0]:.0f} s and {took[1]:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
