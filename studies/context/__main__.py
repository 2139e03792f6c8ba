"""A view of the whole noisy image as one more channel of the patch network; docs/studies/context.md.

    python -m studies.context train                       two trainings of the same time, with context and without
    python -m studies.context train --start none          from scratch
    python -m studies.context measure                     the validation slices, then the test slices
    python -m studies.context measure --slices validation --problems ct8 fan180 --most 6
    python -m studies.context table                       the tables of whatever cells there are

Both trainings begin at the shipped weights, the kernels of the new channel at 0. A budget is a number of steps: those
that fit into --minutes on this machine, timed before the first training with nothing else running and kept in a file of
--out. `measure` denoises whole slices at four levels and solves four problems by plug-and-play with its presets; the
arm `shipped` is the shipped weights without more training. Rerun the same command to resume: a training has checkpoints
in --runs, what is finished a file in --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_bytes
from studies.context.measured import ARMS, GROUPS, LEVELS, SOLVED, measure, read
from studies.context.report import tables
from studies.context.training import START, folder, train

PROBLEMS = (*LEVELS, *SOLVED)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "measure", "table"))
    parser.add_argument("--minutes", type=float, default=30.0, help="of each training, without compilation")
    parser.add_argument("--start", default=START, help="weights that both trainings begin at; none: from scratch")
    parser.add_argument("--learning-rate", type=float, help="of both trainings; default: see training.py")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="to be measured")
    parser.add_argument("--slices", nargs="+", choices=tuple(GROUPS), default=list(GROUPS), help="to be measured")
    parser.add_argument("--most", type=int, help="new cells in this call")
    parser.add_argument("--out", type=Path, default=Path("results/context"))
    parser.add_argument("--runs", type=Path, default=Path("runs/context"), help="checkpoints and weights")
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        raise UserError(f"--minutes {args.minutes}: it must be positive")
    out = folder(args, args.out)
    if args.part == "train":
        train(args)
    elif args.part == "measure":
        measure(args, out)
    else:
        text = tables(read(out))
        write_bytes(out / "results.md", text.encode())
        print(text)


if __name__ == "__main__":
    main()
