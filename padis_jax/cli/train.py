"""Trains a patch prior on the images that a config names.

    python train.py --config configs/smoke.py --workdir runs/smoke
    python train.py --config configs/head_ct.py --workdir runs/head --run.steps 2000 --optimiser.learning-rate 5e-4

The work folder receives checkpoints/, log.jsonl, config.json, pictures of denoised patches and, at the end,
weights.safetensors (the averaged parameters with config, frame and provenance), which sample.py takes as --weights. Run
the same command again after an interruption and it goes on from the newest intact checkpoint, whose config it takes;
flags given then still override it. SIGTERM and Ctrl-C save after the step under way and exit with 128 + signal number.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

import padis_jax
from padis_jax import checkpoint, cluster
from padis_jax.batches import Batch, crop_batch, draw_batch, pad_images
from padis_jax.cli.arguments import parse, split_args
from padis_jax.config import Config, from_json, load_config_file
from padis_jax.denoiser import denoise_patches
from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import patch_grid, save_figure, training_curves
from padis_jax.files import write_json
from padis_jax.images import ImageSet, Window, read_images
from padis_jax.interruption import Interruption, leave
from padis_jax.log import Log
from padis_jax.loss import denoising_loss
from padis_jax.mesh import is_leader, make_mesh, on_host, put
from padis_jax.parallel import check_batch, put_batch, state_sharding, step_function
from padis_jax.patches import Frame, frame_for
from padis_jax.split import Split, split_slices
from padis_jax.training import Metrics, TrainState, init_state
from padis_jax.weights import file_hash, load_weights, save_weights

VALIDATION_PATCHES = 64
PICTURE_SIGMAS = (0.05, 0.2, 0.8)


class Task(NamedTuple):
    """What a run works on: padded training images [n, Hp, Wp, C], a fixed validation batch or None, geometry."""

    padded: np.ndarray
    validation: Batch | None
    frame: Frame
    window: Window


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of train.py and padis-train."""
    config_file, workdir, rest = split_args(cluster.join(sys.argv[1:] if argv is None else argv))
    given = load_config_file(config_file, Config) if config_file else None
    if given is not None or {"-h", "--help"} & set(rest):  # before the work folder is touched
        given = _parse(rest, given or Config())
    if not workdir:
        raise UserError("name the folder for results: --workdir DIR (and the settings: --config configs/NAME.py)")
    if given is None and not checkpoint.folder(workdir).is_dir():
        raise UserError(f"{workdir} has no checkpoint to go on from: name the settings with --config FILE")
    with checkpoint.open_checkpoints(workdir) as manager:
        config = _resolve(given, checkpoint.saved_config(manager), rest, workdir)
    with checkpoint.open_checkpoints(workdir, keep=config.run.keep) as manager:
        train(config, Path(workdir), manager)


def _parse(args: Sequence[str], default: Config) -> Config:
    return parse(Config, args, default=default, prog="train.py --config FILE --workdir DIR", description=__doc__ or "")


def _resolve(given: Config | None, saved: Mapping[str, Any] | None, args: Sequence[str], workdir: str) -> Config:
    """The checkpoint's settings if there is one, otherwise the given ones; flags count in both cases."""
    if saved is None:
        if given is None:
            raise UserError(f"{workdir} has no checkpoint to go on from: name the settings with --config FILE")
        return given
    config = _parse(args, from_json(Config, saved.get("config"), f"{workdir}: the checkpoint's config"))
    if given is not None and given.network != config.network:
        raise UserError(
            f"{workdir} holds checkpoints of another network ({config.network}) than --config gives ({given.network}); "
            "choose another --workdir, or leave --config out to go on with the checkpoint's"
        )
    return config


def train(config: Config, workdir: Path, manager: ocp.CheckpointManager) -> TrainState:
    """Trains until `config.run.steps`, from the newest checkpoint if there is one, and writes the weights.

    Raises:
      UserError: if the loss stops being finite, or for what `load_task` and `checkpoint.restore` refuse.
    """
    mesh = make_mesh(config.run.devices)
    check_batch(mesh, config.patches)
    task = load_task(config)
    sharding = state_sharding(config, mesh)
    state = checkpoint.restore(manager, jax.eval_shape(lambda: init_state(config)), sharding)
    if state is None:
        state = put(first_state(config, task.frame), sharding)
    step_on_mesh = step_function(config, mesh)
    start = int(state.step)
    if start >= config.run.steps and is_leader():
        print(f"{workdir}: trained for {start} steps already; raise --run.steps to go on", file=sys.stderr)
    about = {
        "config": dataclasses.asdict(config),
        "frame": dataclasses.asdict(task.frame),
        "window": dataclasses.asdict(task.window),
    }
    if is_leader():
        write_json(workdir / "config.json", about)
    pending: list[Metrics] = []
    with (
        Interruption() as stop,
        Log(workdir, start, config.run.tensorboard) as log,
        _progress(start, config.run.steps) as bar,
    ):
        clock = time.perf_counter()  # not the time of day, which may be set back
        for step in range(start, config.run.steps):
            batch = draw_batch(task.padded, config.patches, config.run.seed, step)
            state, metrics = step_on_mesh(config, state, *put_batch(mesh, batch))
            pending.append(metrics)
            bar.update()
            last = step + 1 == config.run.steps
            log.count(batch)
            if last or (step + 1) % config.run.log_every == 0:
                _check(pending, step + 1)
                record = log.training(step + 1, state, pending, time.perf_counter() - clock)
                bar.set_postfix(loss=f"{record['loss']:.4f}", patches_per_s=f"{record['patches_per_second']:.0f}")
                pending, clock = [], time.perf_counter()
            if task.validation and (last or (step + 1) % config.run.validate_every == 0):
                here = state._replace(ema=on_host(state.ema))  # by all processes, in step
                if is_leader():
                    log.write(step + 1, validation_loss=validate(config, here, task.validation))
                    _pictures(workdir, config, here, task.validation, step + 1)
            if last or (step + 1) % config.run.checkpoint_every == 0:
                checkpoint.save(manager, state, about)
            if received := stop.due(step + 1):
                checkpoint.save(manager, state, about, wait=True)
                raise leave(received, step + 1)
    here = state._replace(ema=on_host(state.ema))
    if is_leader():
        export(workdir, config, here, task)
    return state


def load_task(config: Config) -> Task:
    """Reads the images, leaves out the held-out ones, pads the rest.

    Raises:
      UserError: for images that cannot be read, or do not fit the network and the patches.
    """
    if not config.data.path:
        raise UserError("data.path is empty: name a folder of images, a .npy array or a .npz volume with --data.path")
    window = None
    if config.data.low is not None and config.data.high is not None:
        window = Window(config.data.unit, config.data.low, config.data.high)
    images = read_images(config.data.path, window=window)
    n, height, width, channels = images.images.shape
    if channels != config.network.image_channels:
        raise UserError(
            f"{config.data.path}: images have {channels} channels, but network.image_channels is "
            f"{config.network.image_channels}; set it to {channels}"
        )
    frame = frame_for((height, width), config.patches.largest)
    split = split_slices(
        n,
        test=config.data.test,
        validation=config.data.validation,
        test_gap=config.data.test_gap,
        validation_gap=config.data.validation_gap,
    )
    train_slices = _limited(split, config.data.limit)
    padded = pad_images(images.select(train_slices).images, frame)
    return Task(padded, _validation_batch(images, split, frame, config), frame, images.window)


def first_state(config: Config, frame: Frame) -> TrainState:
    """The state before the first step: random parameters, or those of `config.run.start_weights`.

    Raises:
      UserError: if those weights cannot be read, or are of another network or image size.
    """
    if not config.run.start_weights:
        return init_state(config)
    weights = load_weights(config.run.start_weights)
    network = dataclasses.replace(weights.network, dropout=config.network.dropout)  # of training, not of the parameters
    for name, wanted, found in (("network", config.network, network), ("frame", frame, weights.frame)):
        if wanted != found:
            raise UserError(
                f"run.start_weights {config.run.start_weights}: its {name} is {found}, but this run has {wanted}; make "
                "them equal, or leave --run.start-weights out"
            )
    return init_state(config, weights.params)


def validate(config: Config, state: TrainState, batch: Batch) -> float:
    """Loss of the averaged parameters on a fixed batch with fixed noise, dropout off."""
    loss = _validation_loss(config, state.ema, jnp.asarray(batch.patches), jnp.asarray(batch.positions))
    return float(loss)


def export(workdir: Path, config: Config, state: TrainState, task: Task) -> None:
    """Writes the averaged parameters as weights.safetensors, with the loss curves beside them."""
    begun = config.run.start_weights
    provenance: dict[str, Any] = {
        "data": config.data.provenance or config.data.path,
        "training_images": len(task.padded),
        "steps": int(state.step),
        "patches_seen": float(state.seen),
        "config": dataclasses.asdict(config),
        "start_weights_sha256": file_hash(begun) if begun and Path(begun).exists() else None,
        "software": f"padis_jax {padis_jax.__version__}, jax {jax.__version__}",
    }
    path = workdir / "weights.safetensors"
    save_weights(
        path,
        jax.device_get(state.ema),
        config.network,
        task.frame,
        task.window,
        provenance,
        dtype=config.run.weights_dtype,
    )
    if (workdir / "log.jsonl").exists():
        save_figure(workdir / "loss.png", training_curves(workdir / "log.jsonl"))
    print(f"{path} written; reconstruct with: python sample.py --weights {path}", file=sys.stderr)


@jax.jit
def _to_noisy(key: jax.Array, patches: jax.Array, sigma: jax.Array) -> jax.Array:
    return patches + sigma[:, None, None, None] * jax.random.normal(key, patches.shape)


def _validation_loss(config: Config, params: Any, patches: jax.Array, positions: jax.Array) -> jax.Array:
    return _jitted_loss(config.network, config.noise, params, patches, positions)


_jitted_loss = jax.jit(
    lambda network, noise, params, patches, positions: denoising_loss(
        jax.random.key(0), network, noise, params, patches, positions, train=False
    ),
    static_argnums=(0, 1),
)
_jitted_denoise = jax.jit(denoise_patches, static_argnums=0)


def _pictures(workdir: Path, config: Config, state: TrainState, batch: Batch, step: int) -> None:
    """Clean, noisy and denoised validation patches at a few noise levels."""
    rows = 2 * len(PICTURE_SIGMAS)
    sigma = jnp.repeat(jnp.asarray(PICTURE_SIGMAS), 2)
    patches, positions = jnp.asarray(batch.patches[:rows]), jnp.asarray(batch.positions[:rows])
    if len(patches) < rows:
        return
    noisy = _to_noisy(jax.random.key(1), patches, sigma)
    clean = _jitted_denoise(config.network, state.ema, noisy, positions, sigma)
    figure = patch_grid(
        {"clean": patches, "noisy": noisy, "denoised": clean}, labels=[f"$\\sigma$ = {float(s):g}" for s in sigma]
    )
    save_figure(workdir / "pictures" / f"step_{step:07d}.png", figure, dpi=100)


def _validation_batch(images: ImageSet, split: Split, frame: Frame, config: Config) -> Batch | None:
    if not split.validation:
        return None
    padded = pad_images(images.select(split.validation).images, frame)
    return crop_batch(np.random.default_rng(0), padded, config.patches.largest, VALIDATION_PATCHES)


def _limited(split: Split, limit: int) -> tuple[int, ...]:
    if not limit or limit >= len(split.train):
        return split.train
    return tuple(split.train[i] for i in np.linspace(0, len(split.train) - 1, limit).round().astype(int))


def _check(pending: Sequence[Metrics], step: int) -> None:
    if any(bool(m.refused) for m in jax.device_get(pending)):
        raise UserError(
            f"the loss or its gradient stopped being finite before step {step}; no such step was taken into the "
            "parameters or their average. Lower --optimiser.learning-rate or --optimiser.clip-norm, or check the "
            "images, and run again: training goes on from the newest checkpoint"
        )


def _progress(start: int, steps: int) -> tqdm[Any]:
    return tqdm(
        total=steps,
        initial=start,
        desc="training",
        unit="step",
        dynamic_ncols=True,
        mininterval=1.0,
        disable=not is_leader(),
    )
