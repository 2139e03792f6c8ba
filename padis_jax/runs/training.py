"""A training run in its work folder: data, first or saved state, the loop and its hooks, the weights at the end."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from tqdm import tqdm

import padis_jax
from padis_jax import checkpoint
from padis_jax.batches import Batch, draw_batch
from padis_jax.config import Config
from padis_jax.devices.mesh import is_leader, make_mesh, on_host, put
from padis_jax.devices.parallel import check_batch, put_batch, state_sharding, step_on_mesh
from padis_jax.errors import UserError
from padis_jax.figures import save_figure, training_curves
from padis_jax.files import place, write_json
from padis_jax.images.layouts import located
from padis_jax.keys import root_key
from padis_jax.loss import DenoisingLoss
from padis_jax.outputs import check_outputs, claimed, has_field
from padis_jax.patches import Frame
from padis_jax.runs.signals import Interruption, leave
from padis_jax.runs.training_data import TrainingData, check_resumed, first_state, load_data, training_blocks
from padis_jax.runs.training_log import Log
from padis_jax.runs.validation import validate, write_pictures
from padis_jax.serialization import from_json
from padis_jax.slab_batches import SlabBatch, draw_slabs
from padis_jax.training import Metrics, TrainState, state_shapes
from padis_jax.training_loop import Hook, every, fit
from padis_jax.weights import load_weights, save_weights

WEIGHTS = "weights.safetensors"
WRITTEN = ("config.json", "log.jsonl", WEIGHTS, "loss.png", "checkpoints/", "pictures/", "tensorboard/")


def check_folder(config: Config, workdir: str | Path) -> None:
    """What `outputs.check_outputs` refuses of a training run."""
    check_outputs(workdir, WRITTEN, inputs(config), of="training", ours=ours(place(workdir)))


def inputs(config: Config) -> list[str]:
    """Files and folders that a training run reads."""
    return [config.data.path, config.run.start_weights]


def ours(workdir: Path) -> bool:
    """Whether a folder is known to be of a training run, though it has no list of its files."""
    return has_field(workdir / "config.json", "frame") or any(checkpoint.folder(workdir).glob("*/config"))


def train(config: Config, workdir: str | Path, *, silent: bool = False, lock: bool = True) -> tuple[Path, int]:
    """Trains until `config.run.steps`, from the newest checkpoint in `workdir` if there is one, and writes the weights.

    A run that is finished, weights and all, keeps its files as they are.

    Args:
      config: all settings; those saved with the checkpoint are not looked at.
      workdir: a folder, or the address of one in a bucket.
      silent: show no bar.
      lock: keep other runs out of `workdir`.

    Returns:
      The weights file, and the number of steps behind it.

    Raises:
      UserError: if the loss stops being finite, if another run is at work in `workdir`, or for what `load_data`,
        `check_resumed`, `refuse_changes`, `checkpoint.restore` and `outputs.check_outputs` refuse.
      SystemExit: after SIGTERM or Ctrl-C, when the state is saved.
    """
    config = dataclasses.replace(config, data=located(config.data))
    run, workdir = config.run, place(workdir)
    mesh = make_mesh(run.devices)
    check_batch(mesh, config.patches)
    data = load_data(config)  # what cannot be read leaves no trace
    with (
        claimed(workdir, WRITTEN, inputs(config), of="training", ours=ours(workdir), lock=lock) as held,
        checkpoint.open_checkpoints(workdir, keep=run.keep) as manager,
    ):
        state, step = begin(config, data.frame, mesh, manager)
        saved = checkpoint.saved_config(manager)
        check_resumed(saved, data, workdir)
        origin = origin_of(saved, run.start_weights)
        start = int(state.step)
        if start >= run.steps:
            refuse_changes(config, saved, workdir)
            if not silent:
                print(f"{workdir}: trained for {start} steps already; raise --run.steps to continue", file=sys.stderr)
            if _steps_behind(workdir / WEIGHTS) == start:
                return workdir / WEIGHTS, start
        about = {"config": dataclasses.asdict(config), "start_weights": origin} | data.about()
        if is_leader():
            write_json(workdir / "config.json", about)
        with (
            Interruption() as stop,
            Log(workdir, start, run.tensorboard) as log,
            tqdm(total=run.steps, initial=start, desc="training", unit="step", mininterval=1.0, disable=silent) as bar,
        ):

            def check() -> None:
                if held is not None:
                    held.check()

            def batches(number: int) -> Batch | SlabBatch:
                batch = _draw(config, data, number)
                log.count(batch)
                bar.update()
                return put_batch(mesh, batch)

            def save(state: TrainState, _: Metrics) -> None:
                check()
                checkpoint.save(manager, state, about)

            def save_and_leave(state: TrainState, _: Metrics) -> None:
                check()
                checkpoint.save(manager, state, about, wait=True)
                assert stop.received is not None  # it is due
                raise leave(stop.received, int(state.step))

            hooks = [Hook(every(run.log_every), lambda *_: check())]
            hooks.append(Hook(every(run.log_every), functools.partial(_log, log, bar)))
            if data.validation:
                look = functools.partial(_validate, config, workdir, log, data.validation)
                hooks.append(Hook(every(run.validate_every), look))
            hooks.append(Hook(every(run.checkpoint_every), save))
            hooks.append(Hook(lambda done, _: stop.due(done), save_and_leave))
            key = jax.random.fold_in(root_key(run.seed), 1)
            state = fit(key, state, batches, step, run.steps, hooks)
        check()
        path, ema = workdir / WEIGHTS, on_host(state.ema)
        if is_leader():
            origins = provenance(config, state, origin) | {"training_images": len(data.padded)}
            about_prior = (path, ema, config.network, data.frame, data.window, origins)
            save_weights(*about_prior, dtype=run.weights_dtype, slab=data.slab, blocks=training_blocks(data))
            if (workdir / "log.jsonl").exists():
                _draw_losses(workdir)
    return path, int(state.step)


def first_step(config: Config, data: TrainingData, workdir: str | Path) -> int:
    """The number of steps that `train` would begin after. Raises what it would before that, and writes nothing."""
    mesh = make_mesh(config.run.devices)
    check_batch(mesh, config.patches)
    if not checkpoint.folder(workdir).is_dir():
        return int(begin(config, data.frame, mesh)[0].step)
    with checkpoint.open_checkpoints(workdir, reading=True) as manager:
        state, _ = begin(config, data.frame, mesh, manager, aside=False)
        saved = checkpoint.saved_config(manager)
        check_resumed(saved, data, workdir)
    if int(state.step) >= config.run.steps:
        refuse_changes(config, saved, workdir)
    return int(state.step)


def refuse_changes(config: Config, saved: Mapping[str, Any] | None, workdir: str | Path) -> None:
    """Refuses, of a run that is finished, other settings than it was trained with: they would change nothing.

    Where the images lie is not looked at: `check_resumed` says whether they are others.

    Raises:
      UserError: naming them.
    """
    before = from_json(Config, (saved or {}).get("config"), f"{workdir}: the checkpoint's config")
    run = dataclasses.replace(before.run, steps=config.run.steps)
    before = dataclasses.replace(before, run=run, data=dataclasses.replace(before.data, path=config.data.path))
    if found := changed(dataclasses.asdict(config), dataclasses.asdict(before)):
        raise UserError(
            f"{workdir}: is trained to the end, and {', '.join(found)}; raise --run.steps to go on with what is given "
            "now, or leave it out"
        )


def changed(given: Mapping[str, Any], used: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The settings of a config that are not the used ones, in words."""
    found = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            found += changed(value, used[name], f"{prefix}{name}.")
        elif value != used[name]:
            found.append(f"{prefix}{name} is {used[name]}, not {value}")
    return found


def _steps_behind(weights: Path) -> int | None:
    """Of a weights file; None where there is none that can be read."""
    try:
        steps: int | None = load_weights(weights, volumes=True).provenance.get("steps")
    except (UserError, OSError):
        return None
    return steps


def provenance(config: Config, state: TrainState, origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a weights file says of its run; `origin`: SHA-256 and provenance of the weights that it started from."""
    begun = Path(config.run.start_weights).name
    settings = dataclasses.replace(config, run=dataclasses.replace(config.run, start_weights=begun))
    return {
        "data": config.data.provenance or config.data.path,
        "steps": int(state.step),
        "patches_seen": float(state.seen),
        "config": dataclasses.asdict(settings),
        "start_weights": origin,
        "software": f"padis_jax {padis_jax.__version__}, jax {jax.__version__}",
    }


def begin(
    config: Config, frame: Frame, mesh: Mesh, manager: ocp.CheckpointManager | None = None, *, aside: bool = True
) -> tuple[TrainState, Callable[..., tuple[TrainState, Metrics]]]:
    """The state to train from, the newest checkpoint's if there is one, and the step for `fit`, both on the mesh.

    `aside`: as of `checkpoint.restore`.
    """
    shapes = state_shapes(config.network, config.optimiser)
    sharding = state_sharding(shapes, mesh, shard_parameters=config.run.shard_parameters)
    loss = DenoisingLoss(config.network, config.noise)
    step = functools.partial(step_on_mesh(mesh, sharding), loss, config.optimiser, config.run.steps)
    state = checkpoint.restore(manager, shapes, sharding, aside=aside) if manager else None
    return put(first_state(config, frame), sharding) if state is None else state, step


def origin_of(saved: Mapping[str, Any] | None, path: str) -> Mapping[str, Any] | None:
    """Of the parameters before the first step; as saved at that time, because the file may be gone by now."""
    if saved is not None:
        return saved.get("start_weights")
    if not path:
        return None
    weights = load_weights(path, volumes=True)
    return {"sha256": weights.digest, "provenance": weights.provenance}


def _draw(config: Config, data: TrainingData, number: int) -> Batch | SlabBatch:
    if data.runs:
        seen = max(2, config.network.position_channels)
        return draw_slabs(data.padded, data.runs, config.patches, config.run.seed, number, seen=seen)
    return draw_batch(data.padded, config.patches, config.run.seed, number)


def _draw_losses(workdir: Path) -> None:
    """loss.png; a warning where the log has no losses, as that of a run whose log is lost: the weights are written."""
    try:
        save_figure(workdir / "loss.png", training_curves(workdir / "log.jsonl"))
    except UserError as error:
        print(f"warning: {workdir / 'loss.png'} could not be drawn: {error}", file=sys.stderr)


def _log(log: Log, bar: tqdm, state: TrainState, metrics: Metrics) -> None:
    line = log.training(state, metrics)
    bar.set_postfix(loss=f"{line['loss']:.4f}", patches_per_s=f"{line['patches_per_second']:.1f}")


def _validate(config: Config, workdir: Path, log: Log, batch: Batch | SlabBatch, state: TrainState, _: Metrics) -> None:
    ema, step = on_host(state.ema), int(state.step)  # by all processes, in step
    if is_leader():
        log.write(step, validation_loss=validate(config.network, config.noise, ema, batch))
        write_pictures(workdir, config.network, ema, batch, step)
