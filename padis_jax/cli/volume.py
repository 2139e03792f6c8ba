"""`sample.py --image.index 60:70` and `--measurement.row all`: a volume, slice by slice; see `padis_jax.runs.volume`.

Finished slices lie in slices/ of the results folder, so that the same command resumes; another choice of slices takes
those that it needs from there.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions, once
from padis_jax.cli.progress import slice_progress
from padis_jax.devices.mesh import make_mesh
from padis_jax.devices.plan import Estimate
from padis_jax.errors import UserError, user_errors
from padis_jax.files import json_text
from padis_jax.images.choice import described
from padis_jax.patches import Frame
from padis_jax.runs.config import Experiment, check_defaults
from padis_jax.runs.defaults import kind_named, plan_of, tv_of
from padis_jax.runs.doubts import without_blocks
from padis_jax.runs.earlier import say_stale
from padis_jax.runs.job import check_job, read_manifest, run_job, settings_of
from padis_jax.runs.prior import build_prior
from padis_jax.runs.results import results_folder
from padis_jax.runs.score import aligned
from padis_jax.runs.solve import traced_case
from padis_jax.runs.solve_slices import batch_size, estimate_of, frame_of, slices_solver
from padis_jax.runs.volume import FREE, Volume, first_case, item_name, one_of, open_volume, refused_slices
from padis_jax.runs.volume_memory import check_host, host_bytes
from padis_jax.runs.volume_results import (
    found_slices,
    summary,
    summary_rows,
    volume_doubts,
    volume_names,
    write_volume,
)
from padis_jax.solvers.presets import Plan
from padis_jax.weights import Weights, load_weights


def run(config: Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> list[dict[str, Any]]:  # noqa: B008 (frozen)
    """Reconstructs the chosen slices, prints mean and spread of their scores, writes the results folder.

    Returns:
      The summary (`volume_results.summary`), empty for a plan.

    Raises:
      UserError: for slices, settings and weights that do not fit, and, at the end, for slices that failed.
    """
    check_defaults(config)
    weights = load_weights(config.weights).computing(config.compute)
    volume, window = open_volume(config, weights), weights.window
    check_host(config, volume)
    kind = kind_named(config)
    plan = plan_of(config, kind)
    frame = frame_of(weights, volume.source.images.shape[1:])
    mesh = make_mesh(config.devices, local=True)
    size = batch_size(config, plan, weights, frame, len(volume.numbers), mesh.size)
    if not output.silent:
        for note in volume.notes:
            print(f"note: {note}", file=sys.stderr)
    names = volume_names(config, workdir, volume, window)
    if output.dry_run:
        check_job(workdir, _about(volume, plan, weights))
        _plan(config, volume, plan, weights, frame, mesh, size, workdir, output)
        return []
    first_case(volume)
    counts = _solve(volume, plan, weights, frame, mesh, size, names, workdir, output)
    lines = {line["item"]: line for line in read_manifest(workdir)}
    chosen = [lines[item_name(number)] for number in volume.numbers]
    _refuse_failed(volume, chosen, workdir)
    with results_folder(workdir, names, config, lock=not output.no_lock):
        stacked = found_slices(workdir, volume, window, chosen)
        smooth = tv_of(config, kind, volume.problem)
        files = write_volume(workdir, config, volume, window, plan, smooth, weights.digest, stacked)
    say_stale(workdir, names)
    found = summary(chosen)
    if output.json:
        about = {"workdir": str(workdir), "unit": window.unit, "choice": volume.choice, **counts}
        about |= {"warnings": warnings} if (warnings := volume_doubts(chosen)) else {}
        print(json_text(about | {"rows": found, "slices": [_brief(line) for line in chosen]}))
    elif not output.quiet:
        print(f"mean and deviation over {len(chosen)} slices:")
        print(aligned(summary_rows(found, window.unit)))
        for warning in volume_doubts(chosen):
            print(f"warning: {warning}")
        if weights.blocks is None:
            print(f"note: {without_blocks(config.weights)}")
    if not output.silent:
        kept = f", {counts['kept']} slices kept from before" if counts["kept"] else ""
        print(f"results in {workdir}: {', '.join(files)}{kept}")
    return found


def _solve(
    volume: Volume,
    plan: Plan,
    weights: Weights,
    frame: Frame,
    mesh: Mesh,
    size: int,
    names: list[str],
    workdir: Path,
    output: OutputOptions,
) -> dict[str, int]:
    """The job; returns its counts."""
    config = volume.config
    many = mesh if mesh.size > 1 else None
    if size == 1:
        prior = build_prior(config, weights, frame, mesh)
    else:
        prior = build_prior(config, weights, frame, images=-(-size // mesh.size))

    on_memory = once(output.on_memory)  # all slices run the same program
    alone = None if size == 1 else many
    solve = slices_solver(config, prior, size=size, mesh=alone, on_memory=on_memory, blocks=weights.blocks)
    try:
        with (
            user_errors(),
            results_folder(workdir, names, config, lock=not output.no_lock) as lock,
            slice_progress(len(volume.numbers), plan.row.label, output, of=prior.frame.image_shape) as progress,
        ):
            return run_job(
                volume.entries,
                workdir,
                solve,
                _about(volume, plan, weights),
                batch=size,
                lock=lock,
                on_kept=progress.kept,
                report=progress.line,
            )
    except KeyboardInterrupt:
        done = sum(line["status"] == "done" for line in read_manifest(workdir))
        where = workdir / "slices"
        raise KeyboardInterrupt(
            f"interrupted; {done} slices are finished and kept in {where}. Rerun the same command to resume"
        ) from None


def _about(volume: Volume, plan: Plan, weights: Weights) -> dict[str, Any]:
    """The settings that every slice depends on, for job.json; not which slices are chosen."""
    about = settings_of(one_of(volume.config, 0), plan, weights, FREE) | {"slices_of": volume.path}
    return about if volume.geometry is None else about | {"geometry": dataclasses.asdict(volume.geometry)}


def _refuse_failed(volume: Volume, lines: list[dict[str, Any]], workdir: Path) -> None:
    failed = [n for n, line in zip(volume.numbers, lines, strict=True) if line["status"] != "done"]
    if not failed:
        return
    first = next(line["reason"] for line in lines if line["status"] != "done")
    raise UserError(
        f"{len(failed)} of {len(lines)} slices failed, {described(tuple(failed))}; the first: {first}. The others are "
        f"kept in {workdir / 'slices'}: repair what failed and rerun the same command, {_remedy(volume, failed)}"
    )


def _remedy(volume: Volume, failed: Collection[int]) -> str:
    rest = tuple(n for n in volume.numbers if n not in failed)
    flag = volume.choice.split()[0]
    return f"or leave it out: {flag} {described(rest)}" if rest else "and rerun the same command"


def _brief(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("slice", "name", "rows")}


def _plan(
    config: Experiment,
    volume: Volume,
    plan: Plan,
    weights: Weights,
    frame: Frame,
    mesh: Mesh,
    size: int,
    workdir: Path,
    output: OutputOptions,
) -> None:
    """Prints what would be done, and what it takes, after reading every slice, and tracing one that can be used.

    Raises:
      UserError: at the end, for slices that cannot be used, as the run does.
    """
    prior = build_prior(config, weights, frame)
    read = tqdm(refused_slices(volume), "reading", len(volume.numbers), unit="slice", disable=output.silent)
    refused = {number: error for number, error in read if error is not None}
    config_of_one = one_of(volume.config, volume.numbers[0])
    traced_case(config_of_one, lambda: dataclasses.replace(first_case(volume, refused), prior=prior))
    at_once = -(-size // mesh.size)
    estimate = estimate_of(
        config, plan, weights, frame, -(-len(volume.numbers) // mesh.size), at_once, timed=output.estimate
    )
    shape, host = volume.source.images.shape, host_bytes(config, volume)
    about: dict[str, Any] = {
        "volume": volume.path,
        "choice": volume.choice,
        "slices": len(volume.numbers),
        "at_once": size,
        "shape": list(shape),
        "spacing_mm": volume.source.spacing,
        "weights": config.weights,
        "solver": plan.method,
        "bytes_of_volumes": host,
        "refused": {str(number): str(error) for number, error in refused.items()},
        "workdir": str(workdir),
    }
    if output.json:
        print(json_text({"dry_run": True, **about, **estimate._asdict()}))
    else:
        for number, error in refused.items():
            print(f"{volume.what} {number}: cannot be used: {error}")
        print(_described(volume, about, plan, estimate))
    if refused:
        first = next(iter(refused.values()))
        raise UserError(
            f"{len(refused)} of {len(volume.numbers)} slices cannot be used, {described(tuple(refused))}; the first: "
            f"{first}. Repair them, {_remedy(volume, refused)}"
        )


def _described(volume: Volume, about: dict[str, Any], plan: Plan, estimate: Estimate) -> str:
    shape, host = volume.source.images.shape, about["bytes_of_volumes"]
    lengths = (
        " x ".join(f"{length:g}" for length in volume.source.spacing) + " mm" if volume.source.spacing else "unknown"
    )
    return (
        f"{len(volume.numbers)} slices of {volume.path} ({volume.choice}; {shape[1]} x {shape[2]}, spacing {lengths}), "
        f"{volume.problem.description}, {about['at_once']} at a time; {plan.row.label} with {about['weights']} into "
        f"{about['workdir']}; "
        f"{estimate.text()}; {host / 1e6:.0f} MB of memory for the volumes at the end"
    )
