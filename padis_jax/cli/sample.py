"""Simulates a CT scan of an image, or a named problem, and reconstructs it with a trained patch prior.

    python sample.py                                          the demo: held-out slice 41, 20 views, 1e5 photons per ray
    python sample.py --image.index 62 --scan.views 60         another slice, more views
    python sample.py --scan.protocol paper                    noiseless, the same projector, as in the paper
    python sample.py --config configs/dps.py                   the paper's VE-DPS, 1000 evaluations
    python sample.py --problem deblur9 --image.path photo.png --weights runs/photos/weights.safetensors
                                                              a named problem (docs/problems.md), grey or in colour
    python sample.py --problem inpaint --mask mask.png --image.path photo.png --weights runs/photos/weights.safetensors
    python sample.py --problem deblur --kernel kernel.npy --boundary reflect     a mask or kernel of one's own
    python sample.py --measurement.path scan.npz --measurement.geometry scan.json --measurement.check
                                                              measured data: does the geometry fit? (docs/geometry.md)
    python sample.py --measurement.path scan.npz --measurement.geometry scan.json --workdir results/scan
    python sample.py --samples 8                              eight runs: mean, deviation, coverage of their intervals
    python sample.py --generate 4                             four images from the prior alone, without a measurement
    python sample.py --measurements scans/ --workdir out       every sinogram of a folder, resumable
    python sample.py --weights runs/mine/weights.safetensors --image.path pictures/ --scan.protocol paper
    python sample.py --image.path series/ --image.index 30 --save-as dicom     DICOM in, DICOM out

The results folder (--workdir, by default results/) receives report.html (all of it on one page), comparison.png,
reconstruction.npz (truth, FBP or what is the simple image of the problem, TV and the solver's image in the image's
unit), metrics.json and config.json (the resolved settings, seed and hash of the weights), and the reconstruction in the
formats of --save-as (dds.nii.gz ...).
With --samples also deviation.png, the samples' mean and deviation in reconstruction.npz, the coverage in metrics.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from padis_jax import experiment as ex
from padis_jax.cli import batch
from padis_jax.cli.arguments import OutputOptions, parse, split_args, split_output_options
from padis_jax.cli.measured import reconstruct_measured
from padis_jax.cli.progress import solver_progress
from padis_jax.cli.saving import check_save, save
from padis_jax.cli.several import generate_images, sample_several
from padis_jax.config import load_config_file
from padis_jax.devices import cluster
from padis_jax.devices.plan import plan_sampling
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import in_bucket
from padis_jax.images import read_images
from padis_jax.runs.results import NAMES, refuse_divergence, table, write_results
from padis_jax.weights import load_weights


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of sample.py and padis-sample."""
    output, args = split_output_options(cluster.join(sys.argv[1:] if argv is None else argv))
    config_file, workdir, rest = split_args(args)
    given = load_config_file(config_file, ex.Experiment) if config_file else ex.Experiment()
    if not config_file:  # what a file says stands
        given = ex.with_problem_defaults(given, rest)
    config = parse(
        ex.Experiment, rest, default=given, prog="sample.py [--config FILE] [--workdir DIR]", description=__doc__ or ""
    )
    if jax.process_count() > 1 and not config.measurements:
        raise UserError("several processes share the items of a folder: give --measurements, or leave --cluster out")
    if in_bucket(workdir or ""):
        raise UserError(f"--workdir {workdir}: results are written to a folder; copy them to the bucket afterwards")
    folder = Path(workdir or "results")
    if config.measurement.check:
        reconstruct_measured(config, folder, output)
        return
    if output.dry_run or output.verbose:
        _plan(config, folder, output)
    if output.dry_run:
        return
    if config.measurements:
        batch.run(config, folder, output)
    elif config.generate:
        generate_images(config, folder, output)
    elif config.measurement.path:
        reconstruct_measured(config, folder, output)
    else:
        sample(config, folder, output)


def _plan(config: ex.Experiment, workdir: Path, output: OutputOptions) -> None:
    """Prints what would be done, and what it takes."""
    weights = load_weights(config.weights).computing(config.compute)
    s = config.solver
    estimate = plan_sampling(
        weights.network,
        weights.params,
        weights.frame,
        evaluations=ex.evaluations(config),
        patch_batch=ex.patch_batch(config, weights, weights.frame, 1) or 0,
        gradient=s.name == "dps",
        timed=output.estimate,
    )
    task = f"--problem {config.problem}" if config.problem else "simulated"
    source = config.measurement.path or f"image {config.image.index} of {config.image.path}, {task}"
    about = {"measurement": source, "weights": config.weights, "solver": s.name, "workdir": str(workdir)}
    if output.json and output.dry_run:
        print(json.dumps({"dry_run": True} | about | estimate._asdict()))
    elif not output.json:
        print(f"{source}; {NAMES[s.name]} with {config.weights} into {workdir}; {estimate.text()}")


def sample(config: ex.Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> list[ex.Row]:  # noqa: B008 (frozen)
    """Runs the experiment, prints the table, writes the results folder.

    Interrupted by Ctrl-C, it writes the images that are finished and says how to go on.

    Raises:
      UserError: for files, settings and images that do not fit.
    """
    for path, default, flag in (
        (config.weights, ex.DEFAULT_WEIGHTS, "--weights"),
        (config.image.path, ex.DEFAULT_IMAGE, "--image.path"),
    ):
        if error := ex.missing_default(path, default, flag):
            raise error
    weights = load_weights(config.weights).computing(config.compute)
    images = read_images(config.image.path, fit=weights.window, memory=0)  # only the chosen one is decoded
    for note in images.notes:
        print(f"note: {note}", file=sys.stderr)
    scene = ex.load_scene(config, images)
    prior = ex.make_prior(config, weights, scene)
    try:
        ex.solver_settings(config.solver, scene.measurement)  # a wrong one is refused before TV takes its time
    except ValueError as error:
        raise UserError(str(error)) from error
    source = images.select([config.image.index])
    check_save(config, workdir, source, scene.window)

    start, fbp_seconds = ex.timed(scene.operator.start, scene.measurement.y)
    simple = {**scene.simple, scene.start_name: start}
    rows = [ex.score(scene.start_name, start, scene, seconds=fbp_seconds)]
    tv, tv_seconds = ex.timed(ex.run_tv, config, scene)
    rows.append(ex.score("TV", tv, scene, seconds=tv_seconds))
    name = NAMES[config.solver.name]
    if config.samples:
        known = {**simple, "TV": tv}
        return sample_several(config, workdir, weights.digest, scene, source, prior, known, rows, output)
    with solver_progress(config.solver, name, output) as progress:
        try:
            solved, seconds = ex.timed(
                ex.run_solver, config, scene, prior, tv, progress=progress, on_memory=output.on_memory
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        except KeyboardInterrupt:
            write_results(workdir, config, weights.digest, scene, {**simple, "TV": tv}, rows, np.zeros(0))
            raise KeyboardInterrupt(
                f"interrupted after {progress.done} of {progress.total} steps of {name}; what came before is in "
                f"{workdir}. Run the same command again for the whole result, which its seed decides"
            ) from None
    image, residuals, evaluations = solved
    refuse_divergence(name, image)
    rows.append(ex.score(name, image, scene, evaluations=evaluations, seconds=seconds))

    if output.json:
        print(json.dumps({"workdir": str(workdir), "unit": scene.window.unit, "rows": [r._asdict() for r in rows]}))
    elif not output.quiet:
        print(table(rows, scene.window.unit))
    write_results(workdir, config, weights.digest, scene, {**simple, "TV": tv, name: image}, rows, residuals)
    more = save(config, workdir, source, scene.window, image, f"{name} reconstruction from {scene.what}")
    names = ("report.html", "comparison.png", "reconstruction.npz", "metrics.json", "config.json", *more)
    if not (output.quiet or output.json):
        print(f"results in {workdir}: {', '.join(names)}")
    return rows
