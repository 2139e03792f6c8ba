"""`sample.py --measurements FOLDER`: reconstructs every measurement of a folder; see `padis_jax.runs.batch_job`.

    --measurements scans/ --scan.views 20 --scan.bins 512      .npz files with `sinogram` [views, bins], in the unit of
                                                               image value times pixel (what the operator of --scan
                                                               gives), and optionally `noise_sigma`, of its entries
    --measurements scans/ --measurement.geometry scan.json     line integrals or counts, of all the formats and with the
                                                               flags of a single measured scan (docs/geometry.md)

Without a geometry file, files other than .npz must tell their geometry. All items of a job have one geometry.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import padis_jax
from padis_jax import experiment as ex
from padis_jax.cli.arguments import OutputOptions
from padis_jax.devices.memory import Memory
from padis_jax.devices.mesh import make_mesh
from padis_jax.errors import UserError
from padis_jax.measurements.load import Scan, load_scan, pose_scan
from padis_jax.measurements.simulate import Measurement
from padis_jax.measurements.sinogram_files import SUFFIXES
from padis_jax.operators import ParallelBeam
from padis_jax.operators.tomography import RayTransform
from padis_jax.runs import batch_job
from padis_jax.runs.batch_job import Item
from padis_jax.runs.solve import TV_WEIGHTS
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import Weights, load_weights


class Job(NamedTuple):
    """What is the same for all items.

    Attributes:
      items: files by the names of their items.
      operator: the scan.
      read: a file -> `Item`.
      about: for job.json.
    """

    items: dict[str, Path]
    operator: RayTransform
    read: batch_job.Read
    about: dict[str, Any]


def run(config: ex.Experiment, workdir: Path, output: OutputOptions = OutputOptions()) -> dict[str, int]:  # noqa: B008 (frozen)
    """Reconstructs the measurements of `config.measurements` into `workdir`.

    Returns:
      Counts of done, failed and kept items.

    Raises:
      UserError: for weights and settings that do not fit, or an empty folder; not for a single bad item.
    """
    weights, solver = load_weights(config.weights).computing(config.compute), config.solver
    frame = weights.frame
    if weights.network.image_channels != 1:
        raise UserError(f"{config.weights}: made for {weights.network.image_channels} channels, but sinograms are grey")
    measured = config.measurement.geometry or not list(Path(config.measurements).glob("*.npz"))
    job = _measured_job(config, weights) if measured else _simulated_job(config, weights)
    tv = TV(weight=config.tv.weight or TV_WEIGHTS[config.scan.protocol], iterations=config.tv.iterations)
    mesh = make_mesh(config.devices, local=True)
    prior = ex.build_prior(config, weights, frame, images=-(-config.batch // mesh.size))

    @jax.jit
    def start(sinograms: jax.Array) -> jax.Array:
        if solver.start == "noise":
            return jnp.zeros((len(sinograms), *frame.image_shape, 1))
        if solver.start == "operator":
            images = jax.lax.map(lambda y: jnp.clip(job.operator.start(y), 0, 1), sinograms)
        else:
            images = jax.lax.map(lambda y: total_variation(y, job.operator, settings=tv).image, sinograms)
        return images.reshape(len(sinograms), *frame.image_shape, 1)

    told: list[Memory] = []

    def on_memory(memory: Memory) -> None:
        if not told:  # all batches run the same program
            output.on_memory(memory)
        told.append(memory)

    def solve(indices: Sequence[int], items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        sinograms = batch_job.stacked(items)
        found = reconstruct_batch(
            jnp.stack([jax.random.fold_in(ex.image_key(config.seed, index), 1) for index in indices]),
            sinograms,
            job.operator,
            prior,
            settings=[ex.solver_settings(solver, _measured(item)) for item in items],
            starts=start(sinograms),
            mesh=mesh if mesh.size > 1 else None,
            on_memory=on_memory,
            solver=solver.name,
            levels=solver.levels,
            inner=solver.inner,
            sigma_max=solver.sigma_max,
            sigma_min=solver.sigma_min,
            ladder=solver.ladder,
            average=solver.average,
        )
        images = np.asarray(weights.window.from_unit(np.asarray(found.images)))
        return images, np.asarray(found.residual[:, -1])

    def report(record: dict[str, Any]) -> None:
        text = record.get("reason") or f"residual {record['residual']:.5f}, {record['seconds']:.1f} s"
        if not output.quiet:
            print(f"{record['item']}: {record['status']}: {text}", file=sys.stderr, flush=True)

    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("devices", "batch", "image")}
    about = {
        "experiment": settings,
        "weights_sha256": weights.digest,
        "unit": weights.window.unit,
        "padis_jax": padis_jax.__version__,
    }
    try:
        counts = batch_job.run(
            job.items, workdir, job.read, solve, about | job.about, batch=config.batch, report=report
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; finished items are in {workdir}, and the same command goes on with the others"
        ) from None
    if output.json:
        print(json.dumps({"workdir": str(workdir)} | counts))
    elif not output.quiet:
        print(f"{workdir}: {counts['done']} done, {counts['failed']} failed, {counts['kept']} kept from before")
    return counts


def _simulated_job(config: ex.Experiment, weights: Weights) -> Job:
    scan = config.scan
    angles = (np.arange(scan.views) + 0.5) * np.pi / scan.views
    operator = ParallelBeam(image_shape=weights.frame.image_shape, angles=angles, detector_count=scan.bins)
    items = batch_job.list_items(config.measurements, (".npz",))
    return Job(items, operator, lambda path: batch_job.read_item(path, (scan.views, scan.bins)), {})


def _measured_job(config: ex.Experiment, weights: Weights) -> Job:
    """The geometry is that of the first file that can be read; others must have the same."""
    if config.measurement.find_centre:
        raise UserError(
            "measurement.find_centre looks at one scan, but all of --measurements have one geometry: find the offset "
            "with --measurement.path FILE, and write it into the geometry file as offset_mm"
        )
    window, shape = weights.window, weights.frame.image_shape
    items = batch_job.list_items(config.measurements, SUFFIXES)

    def load(path: Path) -> Scan:
        return load_scan(dataclasses.replace(config.measurement, path=str(path)))

    first: Path | None = None
    reasons = []
    for path in items.values():
        try:
            geometry = load(path).geometry
        except UserError as error:
            reasons.append(str(error))
            continue
        first = path
        break
    if first is None:
        raise UserError(f"{config.measurements}: none of its {len(items)} files can be used; the first: {reasons[0]}")
    pixel = config.measurement.pixel_mm or geometry.field_mm / max(shape)
    operator = geometry.operator(shape, pixel)

    def read(path: Path) -> Item:
        scan = load(path)
        if scan.geometry != geometry:
            fields = [f for f in vars(geometry) if getattr(geometry, f) != getattr(scan.geometry, f)]
            raise UserError(
                f"{path}: its geometry is not that of {first.name} ({', '.join(fields)}); give it a folder of its own"
            )
        posed = pose_scan(config.measurement, scan, window, shape, operator=operator)
        found, bounds = posed.measurement, [posed.attenuation.low, posed.attenuation.high]
        values = np.asarray(found.y)
        if not np.isfinite(values).all():
            raise UserError(f"{path}: has values that are NaN or infinite; mend or remove them")
        about = {
            "repaired_counts": scan.repaired,
            "attenuation_per_mm": bounds,
            "noise_sigma": float(found.noise_sigma),
        }
        return Item(values, float(found.noise_sigma), about)

    return Job(items, operator, read, {"geometry": dataclasses.asdict(geometry), "pixel_mm": pixel})


def _measured(item: Item) -> Measurement:
    sigma = jnp.full(item.sinogram.shape, item.noise_sigma, jnp.float32)
    return Measurement(jnp.asarray(item.sinogram), sigma, "honest")
