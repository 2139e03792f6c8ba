"""The prior and the solver of an experiment, from its settings."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, Literal

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from padis_jax.devices.chunk import choose_patch_batch
from padis_jax.devices.mesh import make_mesh
from padis_jax.errors import UserError
from padis_jax.runs.config import PLUG_AND_PLAY, Experiment, SolverConfig
from padis_jax.runs.case import Scene, image_key
from padis_jax.measurements.simulate import Measurement
from padis_jax.patches import Frame, frame_for
from padis_jax.prior import Prior, patch_prior
from padis_jax.solvers.presets import TV_WEIGHT, tv_settings
from padis_jax.solvers import sampling
from padis_jax.solvers.plug_and_play import PlugAndPlay, plug_and_play
from padis_jax.solvers.reconstruct import SOLVERS, reconstruct
from padis_jax.solvers.samples import Samples, draw_samples
from padis_jax.solvers.tv import TV, total_variation
from padis_jax.weights import Weights

TV_WEIGHTS = {
    "honest": TV_WEIGHT["counts"],
    "paper": TV_WEIGHT["ct"],
}  # python -m studies.tune --method tv --vary tv.weight ...


def make_prior(config: Experiment, weights: Weights, scene: Scene) -> Prior:
    """The prior of the weights, on the scene's image.

    Raises:
      UserError: if channels, window or size differ from those that the weights were trained on.
    """
    h, w, c = scene.truth.shape
    if c != weights.network.image_channels:
        raise UserError(f"{config.weights}: trained on images of {weights.network.image_channels} channels, not {c}")
    if scene.window != weights.window:
        raise UserError(f"{config.weights}: trained with the window {weights.window}, but the image has {scene.window}")
    frame = weights.frame
    if frame.image_shape != (h, w):
        if not config.new_frame:
            raise UserError(
                f"{config.weights}: trained on images of {frame.image_shape}, but this one is {(h, w)}; resize it, or "
                "pass --new-frame to tile it anew, positions rescaled to it (the object must fill it as before)"
            )
        frame = frame_for((h, w), frame.patch)
    return build_prior(config, weights, frame, make_mesh(config.devices, local=True))


def build_prior(
    config: Experiment, weights: Weights, frame: Frame, mesh: Mesh | None = None, *, images: int = 1
) -> Prior:
    """The prior of the weights with the tiling that the config asks for.

    Args:
      config: the experiment.
      weights: of the network.
      frame: of the image.
      mesh: devices that share the patches of an image, if it has more than one.
      images: side by side on each device.

    Raises:
      UserError: for more tilings than the frame has.
    """
    devices = mesh.size if mesh else 1
    try:
        return patch_prior(
            weights.network,
            weights.params,
            frame,
            tiling=config.tiling,
            tilings=config.tilings,
            overlap=config.overlap,
            patch_batch=patch_batch(config, weights, frame, devices, images=images),
            mesh=mesh if devices > 1 else None,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def patch_batch(config: Experiment, weights: Weights, frame: Frame, devices: int, *, images: int = 1) -> int | None:
    """The patches per network call that the config asks for; "auto" prints what it takes and the estimated memory.

    Args:
      config: the experiment.
      weights: of the network.
      frame: of the image.
      devices: that share the patches of an image.
      images: side by side on each device.
    """
    if config.patch_batch != "auto":
        return config.patch_batch or None
    count = -(-frame.patch_count * config.tilings // devices)
    gradient = config.solver.name in ("dps", "tmpd")
    size, estimated = choose_patch_batch(
        weights.network, weights.params, frame.tile_shape, count, images=images, gradient=gradient
    )
    print(
        f"patch batch {size} of {count} patches on each device: an estimated {estimated / 2**20:.0f} MiB for the network",
        file=sys.stderr,
    )
    return size


def solver_settings(config: SolverConfig, measurement: Measurement) -> Any:
    """The chosen solver's own settings, of the class that it takes; the noise level comes from the measurement."""
    if config.name == "pnp_admm" or config.name == "pnp_red":
        method: Literal["admm", "red"] = "admm" if config.name == "pnp_admm" else "red"
        return PlugAndPlay(method=method, sigma=config.pnp_sigma, weight=config.pnp_weight, cg_steps=config.cg_steps)
    kind = SOLVERS[config.name].settings
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {name: value for name, value in dataclasses.asdict(config).items() if name in fields}
    if not config.zeta:  # 0 stands for the solver's own default
        given.pop("zeta", None)
    if config.name == "ddnm":
        given["cg_steps"] = config.pinv_steps
    if "noise" in fields:
        given["noise"] = measurement.noise_sigma
    return kind(**given)


def evaluations(config: Experiment) -> int:
    """Network evaluations of the whole image that the solver takes."""
    solver = config.solver
    each = 1 if solver.name in PLUG_AND_PLAY else SOLVERS[solver.name].evaluations(solver)
    steps = solver.levels * solver.inner * config.samples if config.samples else solver.steps
    return steps * each * config.tilings


def run_tv(config: Experiment, scene: Scene) -> Array:
    """The image of total variation, [H, W, C]."""
    settings = TV(weight=config.tv.weight or TV_WEIGHTS[config.scan.protocol], iterations=config.tv.iterations)
    if scene.task and not config.tv.weight:
        chosen = tv_settings(scene.task, counts=scene.measurement.protocol == "honest", noise=config.noise)
        settings = dataclasses.replace(settings, weight=chosen.weight)
    return total_variation(scene.measurement.y, scene.operator, settings=settings).image


def run_solver(
    config: Experiment,
    scene: Scene,
    prior: Prior,
    tv: Array,
    *,
    progress: sampling.Progress | None = None,
    on_memory: sampling.OnMemory | None = None,
) -> tuple[Array, np.ndarray, int]:
    """The chosen solver: (image [H, W, C], residual per level, network evaluations).

    Args:
      config: the experiment.
      scene: from `load_scene`.
      prior: from `make_prior`.
      tv: from `run_tv`, where the solver starts from it.
      progress: called with (steps done, steps in all, info).
      on_memory: called with the memory of the compiled loop before it runs.
    """
    key = jax.random.fold_in(image_key(config.seed, config.image.index), 1)
    arguments = (scene.measurement.y, scene.operator, prior)
    options = _solver_options(config.solver, scene, tv)
    if config.solver.name in PLUG_AND_PLAY:
        settings, iterations, start = options["settings"], config.solver.levels, options["start"]
        result = plug_and_play(
            key, *arguments, settings=settings, iterations=iterations, start=start, progress=progress
        )
    else:
        result = reconstruct(
            key, *arguments, average=config.solver.average, progress=progress, on_memory=on_memory, **options
        )
    return jax.block_until_ready(result.image), np.asarray(result.residual), result.evaluations


def run_samples(config: Experiment, scene: Scene, prior: Prior, tv: Array) -> Samples:
    """`config.samples` runs of the chosen solver: the chains that `run_solver` would average."""
    return draw_samples(
        jax.random.fold_in(image_key(config.seed, config.image.index), 1),
        scene.measurement.y,
        scene.operator,
        prior,
        config.samples,
        **_solver_options(config.solver, scene, tv),
    )


def _solver_options(config: SolverConfig, scene: Scene, tv: Array) -> dict[str, Any]:
    return {
        "solver": config.name,
        "settings": solver_settings(config, scene.measurement),
        "levels": config.levels,
        "inner": config.inner,
        "sigma_max": config.sigma_max,
        "sigma_min": config.sigma_min,
        "ladder": config.ladder,
        "start": tv if config.start == "tv" else config.start,
    }
