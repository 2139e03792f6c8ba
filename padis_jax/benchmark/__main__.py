"""Every method on every problem: mean and spread of PSNR, SSIM, residual, evaluations and seconds.

    python -m padis_jax.benchmark --dry-run                         what runs, what does not and why
    python -m padis_jax.benchmark                                   the quick grid, for two cores
    python -m padis_jax.benchmark --only ct20                       one problem, all methods
    python -m padis_jax.benchmark --only 'ct*/dds' --only ct20/tv   some fields of the table
    python -m padis_jax.benchmark --restore ct --only 'deblur*'     CT slices, with the prior for CT
    python -m padis_jax.benchmark --weights-rgb photos
    python -m padis_jax.benchmark --preset paper --only sr4 --weights-rgb photos --photos bsd100:BSDS300/
    python -m padis_jax.benchmark --preset paper --ct aapm_test/ --weights aapm.safetensors \\
        --photos celebahq_test/ --weights-rgb celebahq.safetensors

The folder --out receives results.md, results.json, pictures/PROBLEM.png and a file for each cell (a method on one image
with one seed); with --only the tables are results_only.md and results_only.json, the pictures in pictures_only/, and
those of the whole grid stay. Killed or interrupted (exit code 130 after Ctrl-C, 143 after SIGTERM), it resumes when the
same command is rerun. A cell that fails does not stop the others; it is named at the end, with exit code 2, and tried
again by the next run. Times exclude XLA's compilation but include Python's tracing, about a second per new shape. CT is
noiseless and measured by the projector that reconstructs, as in the paper; docs/problems.md describes the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from padis_jax.benchmark.cells import Result
from padis_jax.benchmark.grid import Benchmark
from padis_jax.benchmark.report import part, summarise
from padis_jax.benchmark.termination import CODE, Terminated, terminable, without_teardown
from padis_jax.benchmark.work import Work, finished_results, prepare, run
from padis_jax.cli.arguments import OutputOptions, parse, split_output_options
from padis_jax.cli.commands import called_as
from padis_jax.cli.help_text import Page
from padis_jax.devices.mesh import check_devices
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import json_text
from padis_jax.images.layouts import split_name
from padis_jax.outputs import check_outputs, claimed, has_field

FILES = "files.json"  # lists what runs have written; results.json are the tables
HELP = Page(
    "benchmark",
    __doc__ or "",
    Benchmark,
    "preset=quick|paper|table only=PROBLEM[/METHOD] weights=FILE weights_rgb=FILE weights_whole=FILE "
    "weights_whole_rgb=FILE cnn=FILE supervised=FILE ct=PATH photos=PATH restore=photos|ct images=N seeds=N... "
    "evaluations=N patch_batch=N out=DIR lines=FILE",
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of python -m padis_jax.benchmark."""
    output, rest = split_output_options(sys.argv[1:] if argv is None else argv, HELP)
    config = parse(Benchmark, rest, default=Benchmark(), prog=called_as("benchmark"), description=HELP.full())
    check_devices()
    work, folder = prepare(config), Path(config.out)
    end = part(config)
    names = [f"results{end}.md", f"results{end}.json", f"pictures{end}/", "cells/"]
    read = [config.weights, config.weights_rgb, config.weights_whole, config.weights_whole_rgb, config.cnn]
    read += [config.cnn_rgb, *config.supervised, config.ct, split_name(config.photos)[1]]
    ours = any(has_field(path, "cells") for path in folder.glob("results*.json"))
    check_outputs(folder, names, read, record=FILES, ours=ours)
    finished, damaged = finished_results(folder, work, config.lines)
    for warning in damaged:
        print(f"warning: {warning}; the cell is recomputed", file=sys.stderr)
    if output.dry_run:
        _plan(config, work, finished, output)
        return
    with claimed(folder, names, read, record=FILES, ours=ours, lock=not output.no_lock):
        _run(config, work, folder, finished, output)


def _run(config: Benchmark, work: Work, folder: Path, finished: dict[str, Result], output: OutputOptions) -> None:
    """Computes what is missing, writes the tables, and says what failed."""
    failed: dict[str, str] = {}
    try:
        with terminable():
            run(config, work, folder, finished, failed, silent=output.quiet or output.json)
    except BaseException as error:
        _summarise_before(error, config, work, folder, finished, failed)
        stopped = f"after {len(finished)} of {len(work.jobs)} cells; rerun the same command to resume in {folder}"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted {stopped}") from None
        if isinstance(error, Terminated):
            print(f"error: stopped by SIGTERM {stopped}", file=sys.stderr)
            raise SystemExit(CODE) from None
        raise
    lines = summarise(config, work, folder, finished, failed)
    end = part(config)
    if output.json:
        print(json_text({"out": str(folder), "cells": len(work.jobs), "fields": len(lines), "failed": len(failed)}))
    elif not output.quiet:
        written = f"{folder / f'results{end}.md'}, results{end}.json and pictures{end}/ written"
        print(f"{len(work.jobs)} cells; {written}{' (--only: those of the whole grid stay)' if end else ''}")
    if failed:
        raise UserError(_failures(work, failed))


def _summarise_before(
    error: BaseException,
    config: Benchmark,
    work: Work,
    folder: Path,
    finished: dict[str, Result],
    failed: dict[str, str],
) -> None:
    """Writes tables and pictures of a run that ends by `error`, which a failure here must not hide."""
    try:
        summarise(config, work, folder, finished, failed)
    except Exception as other:  # a full disk, say, which may be what ended the run
        print(f"warning: after {type(error).__name__} the tables could not be written: {other}", file=sys.stderr)


def _failures(work: Work, failed: dict[str, str]) -> str:
    """What to say of cells that failed."""
    cells = [job.cell for job in work.jobs if job.cell.fingerprint in failed]
    named = [f"{c.problem}/{c.method} on {c.image}, seed {c.seed}: {failed[c.fingerprint]}" for c in cells[:3]]
    more = f"; and {len(cells) - 3} more" if len(cells) > 3 else ""
    return (
        f"{len(cells)} of {len(work.jobs)} cells failed: {'; '.join(named)}{more}. The others are finished; fix the "
        "cause and rerun the same command (--patch-batch 4 takes less memory), or choose others with --only"
    )


def _plan(config: Benchmark, work: Work, finished: dict[str, Result], output: OutputOptions) -> None:
    """Prints the grid with counts."""
    rows: list[dict[str, Any]] = []
    for problem, images in work.pictures.items():
        jobs = [job for job in work.jobs if job.cell.problem == problem]
        fields = [entry for entry in work.fields if entry.problem == problem]
        refused: dict[str, list[str]] = {}
        for entry in fields:
            if entry.refused:
                refused.setdefault(entry.refused, []).append(entry.method)
        rows.append(
            {
                "problem": problem,
                "images": len(images.names),
                "of": images.title,
                "cells": len(jobs),
                "finished": sum(job.cell.fingerprint in finished for job in jobs),
                "methods": [entry.method for entry in fields if not entry.refused],
                "refused": refused,
            }
        )
    if output.json:
        print(json_text({"dry_run": True, "out": config.out, "cells": len(work.jobs), "grid": rows}))
        return
    for row in rows:
        print(f"{row['problem']}: {row['cells']} cells ({row['finished']} finished), {row['images']} of {row['of']}")
        print(f"  {', '.join(row['methods']) or 'no method'}")
        for reason, methods in row["refused"].items():
            print(f"  not {', '.join(methods)}: {reason}")
    budgets = sorted({config.evaluations_of(e.method) for e in work.fields})
    print(
        f"{len(work.jobs)} cells, {len(finished)} finished, into {config.out}; network evaluations per run of a method "
        f"that has a network: {', '.join(map(str, budgets))}"
    )


if __name__ == "__main__":
    with without_teardown():
        main()
