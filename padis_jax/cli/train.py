"""Trains a patch prior on the images that a config names.

    python train.py --config configs/smoke.py --workdir runs/smoke
    python train.py --config configs/head_ct.py --workdir runs/head --run.steps 2000 --optimiser.learning-rate 5e-4
    python train.py --config configs/head_ct.py --workdir runs/head --dry-run       what that would take
    python train.py --workdir runs/head                                             goes on after an interruption

The work folder receives checkpoints/, log.jsonl, config.json, pictures of denoised patches and, at the end,
weights.safetensors (the averaged parameters with config, frame and provenance), which sample.py takes as --weights. Run
the same command again after an interruption and it goes on from the newest intact checkpoint, whose config it takes;
flags given then still override it. SIGTERM and Ctrl-C save after the step under way and exit with 128 + signal number.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from tqdm import tqdm

import padis_jax
from padis_jax import checkpoint
from padis_jax.batches import draw_batch
from padis_jax.cli.arguments import OutputOptions, parse, split_args, split_output_options
from padis_jax.config import Config, load_config_file
from padis_jax.devices import cluster
from padis_jax.devices.mesh import is_leader, make_mesh, on_host, put
from padis_jax.devices.parallel import check_batch, put_batch, state_sharding, step_function
from padis_jax.devices.plan import plan_training
from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures import save_figure, training_curves
from padis_jax.files import check_bucket, place, write_json
from padis_jax.runs.signals import Interruption, leave
from padis_jax.runs.training_data import Task, first_state, load_task
from padis_jax.runs.training_log import Log
from padis_jax.runs.validation import validate, write_pictures
from padis_jax.serialization import from_json
from padis_jax.training import Metrics, TrainState, init_state
from padis_jax.weights import file_hash, load_weights, save_weights


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of train.py and padis-train."""
    output, args = split_output_options(cluster.join(sys.argv[1:] if argv is None else argv))
    config_file, workdir, rest = split_args(args)
    given = load_config_file(config_file, Config) if config_file else None
    if given is not None or {"-h", "--help"} & set(rest):  # before the work folder is touched
        given = _parse(rest, given or Config())
    if not workdir:
        raise UserError("name the folder for results: --workdir DIR (and the settings: --config configs/NAME.py)")
    check_bucket(workdir)
    if given is None and not checkpoint.folder(workdir).is_dir():
        raise UserError(f"{workdir} has no checkpoint to go on from: name the settings with --config FILE")
    if output.dry_run and not checkpoint.folder(workdir).is_dir():  # the work folder is not even made
        assert given is not None  # without settings and checkpoint it was refused
        _plan(given, workdir, 0, output)
        return
    with checkpoint.open_checkpoints(workdir) as manager:
        config = _resolve(given, checkpoint.saved_config(manager), rest, workdir)
        start = manager.latest_step() or 0
    if output.dry_run or output.verbose:
        _plan(config, workdir, start, output)
    if not output.dry_run:
        with checkpoint.open_checkpoints(workdir, keep=config.run.keep) as manager:
            train(config, place(workdir), manager, output)


def _plan(config: Config, workdir: str, start: int, output: OutputOptions) -> None:
    """Prints what would be done, and what it takes."""
    task = load_task(config)
    estimate = plan_training(config, task.frame, max(config.run.steps - start, 0), timed=output.estimate)
    about = {"data": config.data.path, "training_images": len(task.padded), "workdir": workdir, "from_step": start}
    if output.json and output.dry_run:
        print(json.dumps({"dry_run": True} | about | estimate._asdict()))
    elif not output.json:
        print(
            f"{len(task.padded)} images of {config.data.path} into {workdir}, steps {start} to {config.run.steps}; "
            f"{estimate.text()}"
        )


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


def train(
    config: Config,
    workdir: Path,
    manager: ocp.CheckpointManager,
    output: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
) -> TrainState:
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
        begun = config.run.start_weights
        state = put(first_state(config, task.frame), sharding)
        origin = {"sha256": file_hash(begun), "provenance": load_weights(begun).provenance} if begun else None
    else:  # from then, as the file of start weights may be gone by now
        origin = (checkpoint.saved_config(manager) or {}).get("start_weights")
    step_on_mesh = step_function(config, mesh)
    start = int(state.step)
    silent = output.quiet or output.json or not is_leader()
    if start >= config.run.steps and not silent:
        print(f"{workdir}: trained for {start} steps already; raise --run.steps to go on", file=sys.stderr)
    about = {
        "config": dataclasses.asdict(config),
        "frame": dataclasses.asdict(task.frame),
        "window": dataclasses.asdict(task.window),
        "start_weights": origin,
    }
    if is_leader():
        write_json(workdir / "config.json", about)
    pending: list[Metrics] = []
    with (
        Interruption() as stop,
        Log(workdir, start, config.run.tensorboard) as log,
        _progress(start, config.run.steps, silent) as bar,
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
                bar.set_postfix(loss=f"{record['loss']:.4f}", patches_per_s=f"{record['patches_per_second']:.1f}")
                pending, clock = [], time.perf_counter()
            if task.validation and (last or (step + 1) % config.run.validate_every == 0):
                here = state._replace(ema=on_host(state.ema))  # by all processes, in step
                if is_leader():
                    log.write(step + 1, validation_loss=validate(config, here, task.validation))
                    write_pictures(workdir, config, here, task.validation, step + 1)
            if last or (step + 1) % config.run.checkpoint_every == 0:
                _check(pending, step + 1)  # so that no checkpoint comes after a step that was not taken
                checkpoint.save(manager, state, about)
            if received := stop.due(step + 1):
                _check(pending, step + 1)
                checkpoint.save(manager, state, about, wait=True)
                raise leave(received, step + 1)
    here = state._replace(ema=on_host(state.ema))
    if is_leader():
        path = export(workdir, config, here, task, origin)
        if output.json:
            print(json.dumps({"workdir": str(workdir), "step": int(state.step), "weights": str(path)}))
        elif not silent:
            print(f"{path} written; reconstruct with: python sample.py --weights {path}", file=sys.stderr)
    return state


def export(
    workdir: Path, config: Config, state: TrainState, task: Task, origin: Mapping[str, Any] | None = None
) -> Path:
    """Writes the averaged parameters as weights.safetensors, with the loss curves beside them; returns its path.

    Args:
      workdir: the folder.
      config: settings.
      state: whose average is written.
      task: what was trained on.
      origin: SHA-256 and provenance of the weights that the first step started from, if there were any.
    """
    begun = Path(config.run.start_weights).name
    settings = dataclasses.replace(config, run=dataclasses.replace(config.run, start_weights=begun))
    provenance: dict[str, Any] = {
        "data": config.data.provenance or config.data.path,
        "training_images": len(task.padded),
        "steps": int(state.step),
        "patches_seen": float(state.seen),
        "config": dataclasses.asdict(settings),
        "start_weights": origin,
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
    return path


def _check(pending: Sequence[Metrics], step: int) -> None:
    if any(bool(m.refused) for m in jax.device_get(pending)):
        raise UserError(
            f"the loss or its gradient stopped being finite before step {step}; no such step was taken into the "
            "parameters or their average. Lower --optimiser.learning-rate or --optimiser.clip-norm, or check the "
            "images, and run again: training goes on from the newest checkpoint"
        )


def _progress(start: int, steps: int, silent: bool) -> tqdm[Any]:
    return tqdm(
        disable=silent, total=steps, initial=start, desc="training", unit="step", dynamic_ncols=True, mininterval=1.0
    )
