"""`sample.py --measurements FOLDER`: reconstructs every measurement of a folder; see `padis_jax.runs.batch_job`.

    --measurements scans/ --scan.views 20 --scan.bins 512      .npz files with `sinogram` [views, bins], in the unit of
                                                               image value times pixel (what the operator of --scan
                                                               gives), and optionally `noise_sigma`, of its entries,
                                                               or `noise_std` [views, bins], of each
    --measurements scans/ --measurement.geometry scan.json     line integrals or counts, of all the formats and with the
                                                               flags of a single measured scan (docs/geometry.md)

Without a geometry file, files other than .npz must contain their geometry. All measurements of a job share one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from padis_jax.cli.arguments import OutputOptions, once
from padis_jax.devices.mesh import make_mesh
from padis_jax.devices.plan import plan_sampling
from padis_jax.errors import UserError, user_errors
from padis_jax.files import json_text
from padis_jax.prior import Prior
from padis_jax.runs import batch_job
from padis_jax.runs.batch_folder import Folder, open_folder
from padis_jax.runs.case import Case, checked_case, grey_only
from padis_jax.runs.config import Experiment, check_defaults
from padis_jax.runs.defaults import kind_named, plan_of
from padis_jax.runs.doubts import unlike, unlike_text, without_blocks
from padis_jax.runs.earlier import say_stale
from padis_jax.runs.job import Item, check_job, settings_of
from padis_jax.runs.prior import build_prior, patch_batch
from padis_jax.runs.results import check_folder, results_folder
from padis_jax.runs.solve import run_batch, traced_case
from padis_jax.weights import Weights, load_weights


def run(config: Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> dict[str, int]:  # noqa: B008 (frozen)
    """Reconstructs the measurements of `config.measurements` into `workdir`.

    Returns:
      Counts of done, failed and kept items.

    Raises:
      UserError: for weights and settings that do not fit, and, at the end, for items that failed.
    """
    check_defaults(config)
    weights = load_weights(config.weights).computing(config.compute)
    frame = weights.frame
    grey_only(config.weights, weights)
    job = open_folder(config, weights, workdir)
    mesh = make_mesh(config.devices, local=True)
    prior = build_prior(config, weights, frame, images=-(-config.batch // mesh.size))
    manifests = [f"manifest_{number:04d}.jsonl" for number in range(jax.process_count())]
    names = [
        "job.json",
        *(manifests if len(manifests) > 1 else ["manifest.jsonl"]),
        *(f"{item}.npz" for item in job.items),
    ]
    check_folder(workdir, names, config)
    plan = plan_of(config, kind_named(config))
    about = settings_of(config, plan, weights, ("devices", "batch", "image", "display")) | job.about
    if output.dry_run:
        check_job(workdir, about)
        return _plan(config, job, prior, weights, workdir, output)
    job.operator()  # what is wrong with it is no single item's

    def read(path: Path) -> Item:
        case = checked_case(str(path), dataclasses.replace(job.case(path), prior=prior))
        if job.about:
            about = {name: case.about[name] for name in ("repaired_counts", "attenuation_per_mm")}
            return Item(case, about | {"noise_sigma": float(case.measurement.noise_sigma)})
        return Item(case)

    on_memory = once(output.on_memory)  # all batches run the same program

    def solve(numbers: Sequence[int], items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        found = run_batch(
            config,
            [item.case for item in items],
            numbers,
            mesh=mesh if mesh.size > 1 else None,
            on_memory=on_memory,
        )
        for item, image in zip(items, np.asarray(found.images), strict=True):
            if weights.blocks is not None and (distance := unlike(weights.blocks, image)) is not None:
                text = unlike_text(config.weights, weights.blocks, distance)
                print(f"warning: {item.case.source.names[0]}: {text}", file=sys.stderr)
        return np.asarray(weights.window.from_unit(np.asarray(found.images))), np.asarray(found.residual[:, -1])

    reasons: list[str] = []

    def report(record: dict[str, Any]) -> None:
        reasons.extend([record["reason"]] if record["status"] == "failed" else ())
        text = record.get("reason") or f"residual {record['residual']:.5f}, {record['seconds']:.1f} s"
        if not output.quiet:
            print(f"{record['item']}: {record['status']}: {text}", file=sys.stderr, flush=True)

    try:
        with user_errors(), results_folder(workdir, names, config, lock=not output.no_lock) as lock:
            counts = batch_job.run(job.items, workdir, read, solve, about, batch=config.batch, lock=lock, report=report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is finished is in {workdir}. Rerun the same command to resume"
        ) from None
    say_stale(workdir, names)
    if output.json:
        print(json_text({"workdir": str(workdir)} | counts))
    elif not output.quiet:
        print(f"{workdir}: {counts['done']} done, {counts['failed']} failed, {counts['kept']} kept from before")
        if weights.blocks is None:
            print(f"note: {without_blocks(config.weights)}")
    if reasons:
        raise _failures(config, counts, reasons[0], workdir)
    return counts


def _failures(config: Experiment, counts: dict[str, int], reason: str, workdir: Path) -> UserError:
    """The error of a folder whose other measurements are done."""
    good = counts["done"] + counts["kept"]
    if not good and jax.process_count() == 1:
        return none_usable(config, reason)
    return UserError(
        f"{counts['failed']} of {good + counts['failed']} measurements failed; the first: {reason}. The others are in "
        f"{workdir}; the same command tries those again that failed"
    )


def none_usable(config: Experiment, reason: str) -> UserError:
    """The error of a folder without a good measurement."""
    return UserError(f"{config.measurements}: no measurement can be used; the first: {reason}")


def _plan(
    config: Experiment, job: Folder, prior: Prior, weights: Weights, workdir: Path, output: OutputOptions
) -> dict[str, int]:
    """Prints what would be done, and what it takes, after reading every item, and tracing one that can be used."""
    refused: dict[str, str] = {}
    mine = list(job.items)[jax.process_index() :: jax.process_count()]

    def passed(name: str, check: Callable[[Path], Any]) -> Any:
        try:
            return check(job.items[name])
        except (UserError, OSError) as error:
            refused[name] = str(error)

    def build() -> Case:
        job.operator()
        order = [*mine, *(name for name in job.items if name not in mine)]  # those of other processes last
        found = (passed(name, job.case) for name in order if name not in refused)
        case = next((case for case in found if case is not None), None)
        if case is None:
            raise none_usable(config, next(iter(refused.values())))
        return dataclasses.replace(case, prior=prior)

    for name in tqdm(mine, desc="reading", unit="file", disable=output.silent):
        passed(name, job.check)
    _, plan = traced_case(config, build)
    counts = {"items": len(job.items), "evaluations_each": plan.evaluations * config.tilings}
    devices = make_mesh(config.devices, local=True).size
    images = -(-min(config.batch, len(job.items)) // devices)
    estimate = plan_sampling(
        weights.network,
        weights.params,
        prior.frame,
        evaluations=-(-len(job.items) // devices) * counts["evaluations_each"],
        patch_batch=patch_batch(config, weights, prior.frame, 1, images=images) or 0,
        gradient=plan.row.gradient,
        images=images,
        timed=output.estimate,
    )
    about = {"measurements": config.measurements, "weights": config.weights, "solver": plan.method, **counts}
    if output.json:
        found = {"dry_run": True, **about, "refused": refused, "workdir": str(workdir), **estimate._asdict()}
        print(json_text(found))
    else:
        for name, reason in refused.items():
            print(f"{name}: cannot be used: {reason}")
        print(
            f"{len(job.items)} measurements of {config.measurements}, {images} at a time; {plan.row.label} with "
            f"{config.weights}, {counts['evaluations_each']} evaluations each, into {workdir}; {estimate.text()}"
        )
    if refused:  # as the run ends
        first = next(iter(refused.values()))
        raise UserError(f"{len(refused)} of {len(mine)} measurements cannot be used; the first: {first}")
    return counts
