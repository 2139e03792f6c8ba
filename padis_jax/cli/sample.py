"""Reconstructs an image from simulated or measured data with a trained patch prior.

    python sample.py                                   demo: held-out slice 41, 20 views
    python sample.py --auto                            settings from the measurement alone
    python sample.py --solver dps --solver.zeta 1      another method, one of its settings
    python sample.py --problem deblur9 --image.path photo.png --weights photos
    python sample.py --measurement.path scan.npz --measurement.geometry scan.json    a measured scan
    python sample.py --samples 8                       mean, deviation and coverage of eight samples
    python sample.py --generate 4                      four images from the prior, no measurement
    python sample.py --image.path series/ --image.index all --save-as dicom    a volume in and out

The results folder (--workdir, by default results/) receives report.html (all of it on one page), pictures,
reconstruction.npz (every image in the image's unit), metrics.json, config.json (settings, seed, hash of the weights),
results.json (the files that runs wrote, which alone are replaced), and the reconstruction in the formats of --save-as.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from padis_jax.cli import batch, volume, whole
from padis_jax.cli.arguments import OutputOptions, split_args, split_output_options
from padis_jax.cli.commands import called_as
from padis_jax.cli.generate import generate_images
from padis_jax.cli.geometry import check
from padis_jax.cli.help_text import Page
from padis_jax.cli.progress import Progress, solver_progress, trial_progress
from padis_jax.cli.solver_flags import parse_experiment, solvers_and_problems
from padis_jax.config import load_config_file
from padis_jax.devices import cluster
from padis_jax.devices.plan import plan_sampling
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import in_bucket, json_text
from padis_jax.images import Shaping, read_images
from padis_jax.measurements.load import MeasuredScan, load_scan
from padis_jax.measurements.volume_load import is_cone
from padis_jax.metrics import Coverage
from padis_jax.runs.automatic import choice_of
from padis_jax.runs.case import Case, check_measured, measured_case, simulated_case
from padis_jax.runs.config import Experiment, check_defaults
from padis_jax.runs.defaults import first_image, plan_of
from padis_jax.runs.doubts import doubts, unlike, unlike_text, without_blocks
from padis_jax.runs.earlier import say_stale
from padis_jax.runs.outcome import Outcome
from padis_jax.runs.prior import check_fits, patch_batch, with_prior
from padis_jax.runs.provenance import trained_note
from padis_jax.runs.results import check_save, inputs, results_folder, write_results
from padis_jax.runs.score import Row, score_samples, table
from padis_jax.runs.solve import TV_ROW, rows_of, traced_case
from padis_jax.runs.volume import one_of
from padis_jax.runs.whole import is_whole
from padis_jax.solvers.presets import Plan
from padis_jax.weights import Weights, load_weights

HELP = Page(
    "sample",
    f"{__doc__}\n{cluster.__doc__}",
    Experiment,
    "weights=FILE image.path=PATH image.index=N|60:70|all scan.views=N scan.photons=X scan.protocol=honest|paper "
    "problem=NAME measurement.path=FILE measurements=DIR auto samples=N save_as=FORMAT... anonymise display=WINDOW...",
    own=(
        ("--config FILE", "Python file with `config`, an Experiment (examples in configs/)"),
        ("--workdir DIR", "folder for the results (default results)"),
    ),
    sections=solvers_and_problems,
)


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of sample.py and padis-sample."""
    output, args = split_output_options(sys.argv[1:] if argv is None else argv, HELP)
    config_file, workdir, rest = split_args(cluster.join(args))
    given = load_config_file(config_file, Experiment) if config_file else first_image(Experiment(), rest)
    config = parse_experiment(rest, default=given, prog=called_as("sample"), description=HELP.full())
    if jax.process_count() > 1 and not config.measurements:
        raise UserError("several processes share a folder of measurements: give --measurements, or leave --cluster out")
    if in_bucket(workdir or ""):
        raise UserError(f"--workdir {workdir}: results are written to a folder; copy them to the bucket afterwards")
    folder = Path(workdir or "results")
    if config.measurement.check:
        if is_cone(config.measurement.geometry):
            raise UserError("--measurement.check: of parallel and fan beams; a cone beam's geometry is not checked")
        scan = load_scan(config.measurement, plan=output.dry_run)
        tell(config, scan, output)
        check(config.measurement.path, scan, folder, output, inputs(config))
    elif config.measurements:
        batch.run(config, folder, output)
    elif config.generate:
        generate_images(config, folder, output)
    elif is_whole(config):
        whole.run(config, folder, output)
    elif config.several:
        volume.run(config, folder, output)
    else:
        sample(config, folder, output)


def tell(config: Experiment, scan: MeasuredScan, output: OutputOptions) -> None:
    """Prints what was read of a measured scan and what was done to it."""
    if output.silent:
        return
    views, bins = scan.sinogram.shape
    print(f"{config.measurement.path}: {views} views of {bins} bins")
    if scan.repaired:
        print(f"{scan.repaired} of {scan.sinogram.size} counts were unusable and were filled from their neighbours")
    for note in scan.notes:
        print(note)
    if config.measurement.find_centre and not scan.centred:
        print("only the run finds the rotation axis, which in this scan takes an image")
    elif config.measurement.find_centre:
        print(f"the rotation axis was found at offset_mm = {scan.geometry.offset_mm:.4f}")


def sample(config: Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> list[Row]:  # noqa: B008 (frozen)
    """Runs the experiment, prints the table, writes the results folder.

    Interrupted by Ctrl-C, it writes the images that are finished and says how to rerun.

    Raises:
      UserError: for files, settings and images that do not fit.
    """
    check_defaults(config)
    weights = load_weights(config.weights).computing(config.compute)
    scan = load_scan(config.measurement, plan=output.dry_run) if config.measurement.path else None
    build: Callable[[], Case]
    if scan is not None:
        tell(config, scan, output)
        if scan.rows > 1:  # whose key is that of its place in the volume
            config = one_of(config, config.measurement.number)
        build = functools.partial(measured_case, config, scan, weights)
    else:
        chosen = config.image
        shaping = Shaping(chosen.crop, chosen.resize, chosen.grey)
        images = read_images(chosen.path, fit=weights.window, memory=0, shaping=shaping)  # only one is decoded
        check_fits(config, images.images.shape[1:], images.window, weights)  # before anything is measured
        build = functools.partial(simulated_case, config, images)
    if output.dry_run:
        case, plan = traced_case(config, lambda: with_prior(config, build(), weights))
        if scan is not None:
            check_measured(config, scan, weights)
    else:
        case = with_prior(config, build(), weights)
        plan = plan_of(config, case.kind, case)
    if scan is None:
        seen = trained_note(weights, config.weights, chosen.path, images, [chosen.number])
        for note in filter(None, (*images.notes, *images.clipped(chosen.number), seen)):
            print(f"note: {note}", file=sys.stderr)
    names = check_save(config, workdir, case)
    if output.dry_run or output.verbose:
        _plan(config, case, plan, weights, workdir, output)
    if output.dry_run:
        return []

    outcome = Outcome(dict(case.simple))

    def look(name: str, image: Any) -> None:
        distance = unlike(weights.blocks, image) if name == TV_ROW else None
        if distance is not None and weights.blocks is not None:
            outcome.warnings.append(unlike_text(config.weights, weights.blocks, distance))
            print(f"warning: {outcome.warnings[-1]}", file=sys.stderr)

    if config.auto:
        with trial_progress(plan.row.label, output, of=case.image_shape) as watch:
            choice = choice_of(config, case, plan, watch=watch)
        plan, outcome.more["auto"] = choice.plan, choice.shown()
        if not output.silent:
            print(choice.text)
    with results_folder(workdir, names, config, lock=not output.no_lock):
        shown = solver_progress(plan.steps, plan.row.label, output, of=case.image_shape, samples=config.samples)
        with shown as progress:
            try:
                rows = rows_of(config, case, plan, progress=progress, on_memory=output.on_memory)
                outcome.fill(case, rows, look)
            except KeyboardInterrupt:
                if not outcome.rows:  # of no image there is a picture
                    raise KeyboardInterrupt("interrupted before the first image; nothing was written") from None
                outcome.more["interrupted"] = True
                write_results(workdir, config, case, plan, weights.digest, outcome)
                raise KeyboardInterrupt(_interrupted(config, plan, progress, workdir)) from None
        _report(config, case, plan, weights, workdir, outcome, scan, output)
    say_stale(workdir, names)
    return outcome.rows


def _interrupted(config: Experiment, plan: Plan, progress: Progress, workdir: Path) -> str:
    done = "" if config.samples else f" after {progress.done} of {progress.total} steps of {plan.row.label}"
    what = f"all {config.samples} samples" if config.samples else "the whole result"
    return f"interrupted{done}; what is finished is in {workdir}. Rerun the same command for {what}"


def _report(
    config: Experiment,
    case: Case,
    plan: Plan,
    weights: Weights,
    workdir: Path,
    outcome: Outcome,
    scan: MeasuredScan | None,
    output: OutputOptions,
) -> None:
    """Writes the folder and prints the table, which a failure of either does not keep from the other."""
    held: list[Coverage] = []
    where = ""
    if outcome.samples is not None:
        about, held, where = score_samples(outcome.samples, case)
        outcome.more["samples"] = about | {"seconds": outcome.rows[-1].seconds}
    warnings = doubts([row.shown() for row in outcome.rows], float(case.measurement.noise_level))
    if every := [*outcome.warnings, *warnings]:
        outcome.more["warnings"] = every
    geometry = scan.geometry if scan is not None else None
    try:
        files = write_results(workdir, config, case, plan, weights.digest, outcome, geometry=geometry)
    finally:
        if output.json:
            found = {"workdir": str(workdir), "unit": case.window.unit, **case.about}
            print(json_text(found | {"rows": [row.shown() for row in outcome.rows], **outcome.more}))
        elif not output.quiet:
            print(table(outcome.rows, case.window.unit))
            for warning in warnings:
                print(f"warning: {warning}")
            if weights.blocks is None:
                print(f"note: {without_blocks(config.weights)}")
            for row in held:
                print(f"{row.nominal:.1%} intervals of the samples contain {row.found:.1%} of {where}")
    if not output.silent:
        print(f"results in {workdir}: {', '.join(files)}")


def _plan(config: Experiment, case: Case, plan: Plan, weights: Weights, workdir: Path, output: OutputOptions) -> None:
    """Prints what would be done, and what it takes."""
    assert case.prior is not None
    runs = config.samples / plan.average if config.samples else 1
    estimate = plan_sampling(
        weights.network,
        weights.params,
        case.prior.frame,
        evaluations=round(runs * plan.evaluations * config.tilings),
        patch_batch=patch_batch(config, weights, case.prior.frame, 1) or 0,
        gradient=plan.row.gradient,
        timed=output.estimate,
    )
    source = config.measurement.path or f"image {config.image.index} of {config.image.path}"
    measured = f"--problem {config.problem}" if config.problem else case.problem.description
    about = {"measurement": f"{source}, {measured}", "weights": config.weights, "solver": plan.method}
    about["workdir"] = str(workdir)
    if output.json and output.dry_run:
        print(json_text({"dry_run": True} | about | estimate._asdict()))
    elif not output.json:
        search = ", after the trials of --auto, which are not counted" if config.auto else ""
        search += ": only the run tells whether enough is left when a part is held out," if config.auto else ""
        print(
            f"{about['measurement']}; {plan.row.label}{search} with {config.weights} into {workdir}; {estimate.text()}"
        )


if __name__ == "__main__":
    main()
