"""What --auto loses against settings that were tuned on validation images: docs/studies/auto.md.

    python -m studies.auto --problem ct20 --scan.protocol paper --image.index 73
    python -m studies.auto --blind                              with the noise taken as unknown
    python -m studies.auto --astray 8                           the search begins at 8 times the preset's weight
    python -m studies.auto --levels                             first and last level are chosen, too
    python -m studies.auto --table                              the table of all that was run

Other flags are those of sample.py. A run appends a line to --out: PSNR of the preset, of what --auto chose with as many
iterations or fewer, and of every trial (of part of the measurement, where a part is held out).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import json_text, read_records, write_bytes
from padis_jax.images import read_images
from padis_jax.runs.automatic import choice_of
from padis_jax.runs.case import simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.runs.defaults import first_image, plan_of
from padis_jax.runs.prior import with_prior
from padis_jax.runs.score import score
from padis_jax.runs.solve import run_solver, run_tv
from padis_jax.weights import load_weights


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Runs one problem, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, default=Path("results/auto.jsonl"))
    parser.add_argument("--blind", action="store_true", help="take the noise as unknown")
    parser.add_argument("--iterations", type=int, default=25, help="of the preset, and at most of what is chosen")
    parser.add_argument("--astray", type=float, default=1.0, help="times the preset's weight, where the search begins")
    parser.add_argument("--levels", action="store_true", help="choose first and last level, too")
    parser.add_argument("--table", action="store_true", help="print what --out holds")
    args, rest = parser.parse_known_args(argv)
    if args.table:
        print(markdown(list(read_records(args.out))))
        return
    base = parse_experiment(
        rest, default=first_image(Experiment(), rest), prog="studies.auto", description=__doc__ or ""
    )
    if base.auto or "weight" in base.solver.settings or base.solver.levels is not None:
        raise UserError("studies.auto: leave out --auto, --solver.weight and --solver.levels, which it sets itself")
    found = measured(base, args.iterations, blind=args.blind, astray=args.astray, levels=args.levels)
    lines = [*read_records(args.out)] if args.out.exists() else []
    write_bytes(args.out, "".join(json_text(line) + "\n" for line in [*lines, found]).encode())
    print(markdown([found]))


def measured(
    config: Experiment, iterations: int, *, blind: bool = False, astray: float = 1.0, levels: bool = False
) -> dict[str, Any]:
    """One line: the preset's PSNR, that of the choice, and the trials."""
    images, weights = read_images(config.image.path), load_weights(config.weights)
    case = with_prior(config, simulated_case(config, images), weights)
    tuned = plan_of(config, case.kind, case)
    tuned = tuned._replace(levels=min(iterations, tuned.levels))
    tv = run_tv(config, case)
    psnr = {"tv": score("TV", tv, case).psnr, "preset": score("", run_solver(config, case, tuned, tv).image, case).psnr}
    settings = dataclasses.replace(tuned.settings, weight=astray * tuned.settings.weight)
    seen: list[float] = []
    choice = choice_of(
        config,
        case,
        tuned._replace(settings=settings),
        blind=blind,
        levels=levels,
        watch=lambda trial, image: seen.append(score("", image, case).psnr),
    )
    psnr["auto"] = score("", run_solver(config, case, choice.plan, tv).image, case).psnr
    about: dict[str, Any] = {
        "problem": config.problem or "scan",
        "protocol": case.measurement.protocol,
        "image": case.name,
    }
    about |= {
        "seed": config.seed,
        "noise": float(case.measurement.noise_sigma),
        "blind": blind,
        "astray": astray,
        "levels": levels,
    }
    trials = [trial._asdict() | {"psnr": value} for trial, value in zip(choice.trials, seen, strict=True)]
    plan = {"preset": tuned.described(), "auto": choice.plan.described()}
    return {**about, "psnr": psnr, "rule": choice.rule, "trials": trials, "evaluations": choice.evaluations, **plan}


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row for each line."""
    head = ("problem", "image", "rule", "TV", "preset: weight, iterations", "PSNR", "auto: weight, iterations", "PSNR")
    rows = [(*head, "loss"), ("---",) * (len(head) + 1), *(_row(line) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    counts = ", counts" if line["protocol"] == "honest" else ""
    start = f", from {line['astray']:g} times" if line["astray"] != 1 else ""
    start += ", levels too" if line.get("levels") else ""
    cells = [f"{line['problem']}{counts}", str(line["image"]), line["rule"] + start, f"{line['psnr']['tv']:.2f}"]
    for name in ("preset", "auto"):
        plan = line[name]
        cells += [f"{plan['settings']['weight']:.2g}, {plan['levels']}", f"{line['psnr'][name]:.2f}"]
    return (*cells, f"{line['psnr']['preset'] - line['psnr']['auto']:+.2f}")


if __name__ == "__main__":
    main()
