"""sample.py with --generate: images from the prior alone, without a measurement."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from padis_jax.cli.arguments import OutputOptions
from padis_jax.cli.progress import solver_progress
from padis_jax.devices.plan import plan_sampling
from padis_jax.errors import UserError
from padis_jax.files import json_text, write_npz
from padis_jax.outputs import written
from padis_jax.prior import Prior
from padis_jax.runs.case import image_key
from padis_jax.runs.config import Experiment, check_defaults
from padis_jax.runs.earlier import say_stale
from padis_jax.runs.prior import build_prior, patch_batch
from padis_jax.runs.results import check_folder, results_folder, write_config
from padis_jax.solvers.generate import generate
from padis_jax.weights import Weights, load_weights
from padis_jax.writers import write_png


def generate_images(config: Experiment, workdir: Path, output: OutputOptions) -> None:
    """Writes generated_00.png ..., generated.npz (in the window's unit) and config.json."""
    check_defaults(config)
    weights = load_weights(config.weights).computing(config.compute)
    prior = build_prior(config, weights, weights.frame)
    names = [*(f"generated_{index:02d}.png" for index in range(config.generate)), "generated.npz", "config.json"]
    check_folder(workdir, names, config)
    if output.dry_run:
        _plan(config, weights, workdir, output)
        return
    images: list[np.ndarray] = []
    with results_folder(workdir, names, config, lock=not output.no_lock) as lock:
        stopped: BaseException | None = None
        try:
            for index in range(config.generate):
                images.append(_drawn(config, prior, index, output))
        except (KeyboardInterrupt, UserError) as error:
            stopped = error
        if images:
            if lock is not None:
                lock.check()
            _write(workdir, config, weights, images)
        if isinstance(stopped, UserError):
            raise stopped
        if stopped is not None:
            what = f"{len(images)} of {config.generate} images are in {workdir}" if images else "nothing was written"
            raise KeyboardInterrupt(f"interrupted; {what}. Rerun the same command for all")
    say_stale(workdir, names)
    if output.json:
        print(json_text({"workdir": str(workdir), "images": len(images), "unit": weights.window.unit}))
    elif not output.quiet:
        print(f"results in {workdir}: {len(images)} generated_NN.png, generated.npz, config.json")


def _drawn(config: Experiment, prior: Prior, index: int, output: OutputOptions) -> np.ndarray:
    """Image `index`, [H, W, C] in [0, 1], not clipped; UserError if it is not finite."""
    name, of = f"image {index}", prior.frame.image_shape
    with solver_progress(config.generate_levels, name, output, of=of) as progress:
        key = image_key(config.seed, index)
        image = np.asarray(generate(key, prior, levels=config.generate_levels, progress=progress))
    if not np.isfinite(image).all():
        raise UserError(
            f"{config.weights}: image {index} is not finite: the network diverges; name others by --weights"
        )
    return image


def _write(workdir: Path, config: Experiment, weights: Weights, images: Sequence[np.ndarray]) -> None:
    """All files of a run together, so that no picture lies beside the settings of another run.

    Numbered pictures that an earlier run has written beyond the last go: its arrays and settings are replaced.
    """
    names = [f"generated_{index:02d}.png" for index in range(len(images))]
    for name in written(workdir) - {*names}:
        if re.fullmatch(r"generated_\d+\.png", name):
            (workdir / name).unlink(missing_ok=True)
    for name, image in zip(names, images, strict=True):
        write_png(workdir / name, image[::-1] if weights.window.unit == "HU" else image)  # CT is stored face down
    in_unit = np.asarray(weights.window.from_unit(np.stack(images)), np.float32)
    write_npz(workdir / "generated.npz", {"images": in_unit, "unit": np.asarray(weights.window.unit)})
    write_config(workdir, dataclasses.replace(config, generate=len(images)), weights.digest)


def _plan(config: Experiment, weights: Weights, workdir: Path, output: OutputOptions) -> None:
    """Prints what would be done, and what it takes."""
    estimate = plan_sampling(
        weights.network,
        weights.params,
        weights.frame,
        evaluations=config.generate * config.generate_levels * config.tilings,
        patch_batch=patch_batch(config, weights, weights.frame, 1) or 0,
        gradient=False,
        timed=output.estimate,
    )
    about = {"images": config.generate, "levels": config.generate_levels, "weights": config.weights}
    if output.json:
        print(json_text({"dry_run": True, **about, "workdir": str(workdir), **estimate._asdict()}))
    else:
        what = f"{config.generate} images of {config.generate_levels} steps with {config.weights} into {workdir}"
        print(f"{what}; {estimate.text()}")
