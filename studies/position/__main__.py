"""What positions are worth to a patch prior, and when they harm: docs/studies/position.md.

    python -m studies.position train                            18 trainings of 20 minutes, most telling first
    python -m studies.position train --only none/56/0 --steps 300    one of them, shorter: WAY/P/SLICES
    python -m studies.position measure                          the four test slices by every finished training
    python -m studies.position misregister                      shifted and turned, with the shipped weights too
    python -m studies.position table                            the tables of whatever cells there are
    python -m studies.position figure

A budget is a number of steps: those that fit into --minutes, timed before the first training of a patch size with
nothing else running and kept in --out, or --steps. A training resumes from its newest checkpoint in --runs, every
reconstruction has a file in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure
from padis_jax.split import HEAD_CT_TEST
from studies.position import cells, trainings
from studies.position.encodings import Way
from studies.position.report import figure, tables

MISREGISTERED = ("coordinates", "none", "dropped")  # of 56 and 16 pixels with all slices; and the weights file


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "measure", "misregister", "table", "figure"))
    parser.add_argument("--only", action="append", default=[], metavar="WAY/P/SLICES", help="may be repeated")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, without compilation")
    parser.add_argument("--steps", type=int, help="of each training, instead of --minutes")
    parser.add_argument("--weights", default="weights/head_ct.safetensors", help="measured too; '' for none")
    parser.add_argument("--methods", nargs="+", choices=cells.METHODS, default=["pnp_admm"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the sampler")
    parser.add_argument("--images", nargs="+", default=list(map(str, HEAD_CT_TEST)), help="slices")
    parser.add_argument("--most", type=int, help="new trainings or cells in this call")
    parser.add_argument("--out", type=Path, default=Path("results/position"))
    parser.add_argument("--runs", type=Path, default=Path("runs/position"), help="trainings")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or (args.steps is not None and args.steps < 1):
        raise UserError(f"--minutes {args.minutes:g} --steps {args.steps}: a budget must be positive")
    if args.part == "train":
        train(args)
    elif args.part == "figure":
        save_figure(args.out / "position.png", figure(cells.read(args.out)))
        print(args.out / "position.png")
    elif args.part == "table":
        print(tables(cells.read(args.out)), end="")
    else:
        available = cells.nets(args.runs, args.weights)
        if args.only:
            chosen = wanted(args.only)
            available = [net for net in available if net[:3] in chosen]
        make = cells.measure_cells
        if args.part == "misregister":
            make = cells.misregister_cells
            ways = (*MISREGISTERED, Path(args.weights).stem)
            available = [net for net in available if net.way in ways and (net.patch, net.slices) in ((56, 0), (16, 0))]
        cells.measure(make(available, args.methods, args.seeds, args.images), available, args.out, args.most)


def wanted(only: Sequence[str]) -> list[tuple[Way, int, int]]:
    """The trainings of these names, or all.

    Raises:
      UserError: for a name that there is not.
    """
    every = {"/".join(map(str, one)): one for one in trainings.order()}
    for name in only:
        if name not in every:
            raise UserError(f"--only {name}: there are {', '.join(every)}")
    return [every[name] for name in only] or list(every.values())


def train(args: argparse.Namespace) -> None:
    """Those that are not finished, at most so many of them."""
    left = args.most
    for way, patch, slices in wanted(args.only):
        steps = trainings.budget(args.out, patch, args.minutes, args.steps)
        names = list(args.runs.glob(f"{way}*_{patch}_{slices}_{steps}/trained.json"))
        if names or left == 0:
            continue
        left = None if left is None else left - 1
        width = trainings.bandwidth(patch, slices, steps, args.runs) if way == "fourier" else 0.0
        training = trainings.Training(way, patch, slices, steps, width)
        row = trainings.train(training, args.runs / training.name)
        took, loss = row["seconds"] / 60, row["validation_loss"]
        print(f"{training.name}: validation loss {loss:.4f}, {took:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
