"""sample.py of a volume that is solved as a whole, such as a cone beam's; see `padis_jax.runs.whole`.

Finished rows of the table lie in rows/ of the results folder, so that the same command resumes.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions
from padis_jax.cli.progress import solver_progress
from padis_jax.devices.mesh import make_mesh
from padis_jax.devices.plan import Estimate
from padis_jax.errors import UserError, user_errors
from padis_jax.files import json_text
from padis_jax.measurements.cone_geometry import ConeScan
from padis_jax.patches import frame_for
from padis_jax.runs.automatic import chosen_plan
from padis_jax.runs.config import Experiment, check_defaults
from padis_jax.runs.defaults import counted, plan_of, tv_of
from padis_jax.runs.doubts import without_blocks
from padis_jax.runs.earlier import say_stale
from padis_jax.runs.job import check_job, read_manifest, run_job, settings_of
from padis_jax.runs.prior import mirrored
from padis_jax.runs.results import results_folder
from padis_jax.runs.score import aligned, held_lines
from padis_jax.runs.solve import traced_case
from padis_jax.runs.solve_rows import AUTO, found_rows, labels_of, rows_solver, steps_of
from padis_jax.runs.volume import FREE, Volume
from padis_jax.runs.volume_case import with_volume_prior
from padis_jax.runs.volume_memory import check_host, check_room, estimate_whole, host_bytes
from padis_jax.runs.volume_results import volume_names, write_volume
from padis_jax.runs.whole import open_whole, rows_of_job, single_run
from padis_jax.solvers.presets import Plan, kind_of
from padis_jax.volume_prior import VolumePrior
from padis_jax.volume_weights import volume_prior_of
from padis_jax.weights import Weights, load_weights


def run(config: Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> list[dict[str, Any]]:  # noqa: B008 (frozen)
    """Reconstructs the volume, prints the table, writes the results folder.

    Returns:
      The rows, as metrics.json has them; empty for a plan.

    Raises:
      UserError: for a scan, settings and weights that do not fit, a volume beyond the memory that is free, and at the
        end for rows that failed.
    """
    check_defaults(config)
    weights = load_weights(config.weights, volumes=True).computing(config.compute)
    volume = open_whole(config, weights)
    config, window = volume.config, weights.window
    kind = kind_of(volume.problem.kind, counts=counted(config))
    plan = plan_of(config, kind)
    shape, measured = tuple(volume.source.images.shape[:3]), measured_shape(volume)
    frame = weights.frame_for(shape[1:]) or frame_for(shape[1:], weights.frame.patch)
    prior = volume_prior_of(
        weights,
        config.weights,
        depth=shape[0],
        first=config.volume.first,
        skip=config.volume.skip,
        frame=frame,
        patch_batch=config.patch_batch or None if isinstance(config.patch_batch, int) else None,
        mesh=(mesh := make_mesh(config.devices, local=True)),
        mirror=mirrored(config, weights),
    )
    cone = isinstance(volume.geometry, ConeScan)
    estimate, peak = estimate_whole(config, plan, weights, prior.frame, measured, cone=cone, timed=output.estimate)
    peak *= sharers(mesh)
    check_room(volume, peak)
    check_host(config, volume, samples_bytes(config, volume))
    labels = labels_of(config, volume, plan)
    steps = steps_of(config, labels, plan)
    items = rows_of_job(volume, steps)
    names = volume_names(config, workdir, volume, window, items="rows/")
    if output.dry_run:
        check_job(workdir, _about(volume, plan, weights))
        for number in volume.numbers[:1] if volume.geometry is not None and not volume.truth else volume.numbers:
            volume.check(number)
    if output.dry_run or cone:  # what the scan does not allow is said before the work
        traced_case(single_run(volume), lambda: with_volume_prior(volume.case(volume.numbers[0]), prior))
    if not output.silent:
        for note in volume.notes:
            print(f"note: {note}", file=sys.stderr)
    if output.dry_run:
        _plan(volume, plan, measured, estimate, peak, workdir, output)
        return []
    placed = dict(zip(steps, items, strict=True))
    counts = _solve(volume, plan, weights, prior, placed, names, workdir, output)
    lines = {line["item"]: line for line in read_manifest(workdir)}
    _refuse_failed(volume, placed, [lines[name] for name in items], workdir)
    shown = {label: placed[label] for label in labels}
    found = found_rows(workdir, shown, window, [lines[name] for name in shown.values()], weights.blocks)
    if config.auto:
        found.metrics["auto"] = lines[placed[AUTO]]["auto"]
        plan = chosen_plan(plan, found.metrics["auto"])
    with results_folder(workdir, names, config, lock=not output.no_lock):
        smooth = tv_of(config, kind, volume.problem)
        files = write_volume(workdir, config, volume, window, plan, smooth, weights.digest, found)
    say_stale(workdir, names)
    if output.json:
        about = {"workdir": str(workdir), "unit": window.unit, "choice": volume.choice, **counts}
        about |= {"warnings": found.warnings} if found.warnings else {}
        print(json_text(about | found.metrics))
    elif not output.quiet:
        print(aligned(found.table))
        for warning in found.warnings:
            print(f"warning: {warning}")
        if weights.blocks is None:
            print(f"note: {without_blocks(config.weights)}")
        for line in held_lines(found.metrics.get("samples", {})):
            print(line.removesuffix("."))
    if not output.silent:
        kept = f", {counts['kept']} rows kept from before" if counts["kept"] else ""
        print(f"results in {workdir}: {', '.join(files)}{kept}")
    return list(found.metrics["rows"])


def sharers(mesh: Mesh | None) -> int:
    """How many devices hold the volume in the same memory: all of a mesh of CPUs; a GPU has its own."""
    return mesh.size if mesh is not None and mesh.devices.flat[0].platform == "cpu" else 1


def samples_bytes(config: Experiment, volume: Volume) -> int:
    """Of the machine's memory where the mean of samples is made: the samples, clipped, together, and in order."""
    return 4 * 4 * config.samples * math.prod(volume.source.images.shape)


def measured_shape(volume: Volume) -> tuple[int, ...]:
    """Of the measurement: [views, rows, columns] of a cone beam, else [D, views, bins]."""
    if isinstance(volume.geometry, ConeScan):
        return volume.geometry.measurement_shape
    depth, height, width, _ = volume.source.images.shape
    if volume.geometry is not None:
        return depth, len(volume.geometry.angles), volume.geometry.bins

    def of_slice(image: Array) -> Array:
        return volume.problem.build((height, width), 1, jax.random.key(0))(image)

    return depth, *jax.eval_shape(of_slice, jax.ShapeDtypeStruct((height, width), jnp.float32)).shape


def _about(volume: Volume, plan: Plan, weights: Weights) -> dict[str, Any]:
    """For job.json."""
    about = settings_of(volume.config, plan, weights, FREE) | {"volume_of": volume.path}
    return about | ({"geometry": dataclasses.asdict(volume.geometry)} if volume.geometry is not None else {})


def _solve(
    volume: Volume,
    plan: Plan,
    weights: Weights,
    prior: VolumePrior,
    placed: dict[str, str],
    names: list[str],
    workdir: Path,
    output: OutputOptions,
) -> dict[str, int]:
    """The job; returns its counts."""
    config, labels = volume.config, list(placed)

    def report(line: dict[str, Any]) -> None:
        if output.silent:
            return
        label = next(label for label in labels if placed[label] == line["item"])
        if "auto" in line:
            tqdm.write(line["auto"]["why"], file=sys.stderr)
        elif line["status"] == "failed":
            tqdm.write(f"{label}: failed: {line['reason']}", file=sys.stderr)
        else:
            residual = line["rows"][0].get("residual")
            said = f", residual {residual:.4f}" if residual is not None else ""
            tqdm.write(f"{label}: {line['rows'][0]['seconds']:.1f} s{said}", file=sys.stderr)

    try:
        with (
            user_errors(),
            results_folder(workdir, names, config, lock=not output.no_lock) as lock,
            solver_progress(
                plan.levels * plan.inner * config.samples or plan.steps, plan.row.label, output, of="volume"
            ) as progress,
        ):
            solve = rows_solver(
                single_run(volume), prior, placed, workdir, progress=progress, on_memory=output.on_memory
            )
            entries, about = rows_of_job(volume, labels), _about(volume, plan, weights)
            return run_job(entries, workdir, solve, about, batch=1, lock=lock, report=report)
    except KeyboardInterrupt:
        finished = {line["item"] for line in read_manifest(workdir) if line["status"] == "done"}
        done = ", ".join(label for label in labels if placed[label] in finished) or "nothing"
        raise KeyboardInterrupt(
            f"interrupted; {done} is finished and kept in {workdir / 'rows'}. Rerun the same command to resume"
        ) from None


def _refuse_failed(volume: Volume, placed: dict[str, str], lines: list[dict[str, Any]], workdir: Path) -> None:
    failed = [(label, line) for label, line in zip(placed, lines, strict=True) if line["status"] != "done"]
    if failed:
        label, line = failed[0]
        raise UserError(
            f"{volume.path}: {label} failed: {line['reason']}. Rows that are finished are kept in {workdir / 'rows'}; "
            "rerun the same command for the others"
        )


def _plan(
    volume: Volume,
    plan: Plan,
    measured: tuple[int, ...],
    estimate: Estimate,
    peak: int,
    workdir: Path,
    output: OutputOptions,
) -> None:
    """Prints what would be done, and what it takes."""
    config, spacing = volume.config, volume.source.spacing
    about: dict[str, Any] = {
        "volume": volume.path,
        "choice": volume.choice,
        "shape": list(volume.source.images.shape[:3]),
        "spacing_mm": spacing,
        "measured": list(measured),
        "weights": config.weights,
        "solver": plan.method,
        "bytes_of_solver": peak,
        "trials_counted": not config.auto,
        "bytes_of_volumes": host_bytes(config, volume) + samples_bytes(config, volume),
        "workdir": str(workdir),
    }
    if output.json:
        print(json_text({"dry_run": True, **about, **estimate._asdict()}))
        return
    shape, lengths = (" x ".join(f"{n:g}" for n in numbers) for numbers in (about["shape"], spacing or ()))
    search = ", after the trials of --auto, which are not counted," if config.auto else ""
    print(
        f"{volume.path}: a volume of {shape} voxels of {lengths} mm, {volume.problem.description}, measurement "
        f"{' x '.join(map(str, measured))}; {plan.row.label}{search} with {config.weights} into {workdir}; "
        f"{estimate.text()} for the network, one slab at a time, {peak / 1e6:.0f} MB with the data step; "
        f"{about['bytes_of_volumes'] / 1e6:.0f} MB of memory for the volumes at the end"
    )
