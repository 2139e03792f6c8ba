"""`sample.py --measurements FOLDER`: reconstructs every measurement of a folder; see `padis_jax.batch_job`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import padis_jax
from padis_jax import batch_job
from padis_jax import experiment as ex
from padis_jax.batch_job import Item
from padis_jax.devices.mesh import make_mesh
from padis_jax.errors import UserError
from padis_jax.experiment.solving import TV_WEIGHTS
from padis_jax.operators import ParallelBeam
from padis_jax.operators.measurement import Measurement
from padis_jax.prior import patch_prior
from padis_jax.solvers.batch import reconstruct_batch
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import load_weights


def run(config: ex.Experiment, workdir: Path) -> dict[str, int]:
    """Reconstructs the measurements of `config.measurements` into `workdir`.

    Returns:
      Counts of done, failed and kept items.

    Raises:
      UserError: for weights and settings that do not fit, or an empty folder; not for a single bad item.
    """
    weights, scan, solver = load_weights(config.weights), config.scan, config.solver
    frame = weights.frame
    if weights.network.image_channels != 1:
        raise UserError(f"{config.weights}: made for {weights.network.image_channels} channels, but sinograms are grey")
    if solver.start == "operator":
        raise UserError("solver.start is 'operator': use 'tv' or 'noise' with --measurements")
    angles = (np.arange(scan.views) + 0.5) * np.pi / scan.views
    operator = ParallelBeam(image_shape=frame.image_shape, angles=angles, detector_count=scan.bins)
    tv = TV(weight=config.tv.weight or TV_WEIGHTS[scan.protocol], iterations=config.tv.iterations)
    mesh = make_mesh(config.devices, local=True)
    try:
        prior = patch_prior(
            weights.network,
            weights.params,
            frame,
            tilings=config.tilings,
            patch_batch=ex.patch_batch(config, weights, frame, 1, images=-(-config.batch // mesh.size)),
        )
    except ValueError as error:
        raise UserError(str(error)) from error

    @jax.jit
    def start(sinograms: jax.Array) -> jax.Array:
        if solver.start == "noise":
            return jnp.zeros((len(sinograms), *frame.image_shape, 1))
        images = jax.lax.map(lambda y: total_variation(y, operator, settings=tv).image, sinograms)
        return images.reshape(len(sinograms), *frame.image_shape, 1)

    def solve(indices: Sequence[int], items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        sinograms = batch_job.stacked(items)
        found = reconstruct_batch(
            jnp.stack([jax.random.fold_in(ex.image_key(config.seed, index), 1) for index in indices]),
            sinograms,
            operator,
            prior,
            settings=[ex.solver_settings(solver, _measured(item)) for item in items],
            starts=start(sinograms),
            mesh=mesh if mesh.size > 1 else None,
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
        print(f"{record['item']}: {record['status']}: {text}", file=sys.stderr, flush=True)

    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("devices", "batch", "image")}
    about = {
        "experiment": settings,
        "weights_sha256": weights.digest,
        "unit": weights.window.unit,
        "padis_jax": padis_jax.__version__,
    }
    shape = (scan.views, scan.bins)
    try:
        counts = batch_job.run(config.measurements, workdir, shape, solve, about, batch=config.batch, report=report)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"{workdir}: {counts['done']} done, {counts['failed']} failed, {counts['kept']} kept from before")
    return counts


def _measured(item: Item) -> Measurement:
    sigma = jnp.full(item.sinogram.shape, item.noise_sigma, jnp.float32)
    return Measurement(jnp.asarray(item.sinogram), sigma, "honest")
