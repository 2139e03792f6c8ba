"""Two trainings of the same time, on patches alone and with context, and their files."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from padis_jax import checkpoint
from padis_jax.baselines.file import Kind, load_baseline, save_baseline
from padis_jax.batches import draw_batch
from padis_jax.config import Config, load_config_file
from padis_jax.conversion.unet_shapes import unet_shapes
from padis_jax.errors import UserError
from padis_jax.files import file_hash, json_text, write_json
from padis_jax.keys import root_key
from padis_jax.loss import DenoisingLoss
from padis_jax.patches import Frame
from padis_jax.prior import Prior, patch_prior
from padis_jax.runs.training_data import TrainingData, load_data
from padis_jax.serialization import from_json, parse_json
from padis_jax.training import Loss, Metrics, TrainState, init_state, train_step
from padis_jax.training_loop import Hook, every, fit
from padis_jax.unet import NetworkConfig, init_network
from padis_jax.weights import load_weights
from studies.cells import digest_of, kept
from studies.context.network import ContextLoss, context_prior, draw_planes, widened
from studies.equal_budget import timed

CONFIG, START, SCRATCH = "configs/head_ct.py", "weights/head_ct.safetensors", "none"
RATE = 6e-4  # of the second training of head_ct, which began at weights, too
ARMS = ("plain", "context")
SAVES = 6  # of a training's state
KIND = Kind("study of context", NetworkConfig, unet_shapes)  # of both arms: no file of a prior


def folder(args: argparse.Namespace, root: Path) -> Path:
    """What belongs to a start and a budget, in --out or in --runs."""
    start = "scratch" if args.start == SCRATCH else Path(args.start).stem
    return root / f"{start}_{args.minutes:g}min"


def weights_file(args: argparse.Namespace, arm: str, seed: int) -> Path:
    """Where a training leaves its weights."""
    return folder(args, args.runs) / f"{arm}_{seed}" / "weights.safetensors"


def train(args: argparse.Namespace) -> None:
    """The trainings that are not finished.

    Raises:
      UserError: for weights of another network than that of CONFIG, or a file that is not of its training.
    """
    config = load_config_file(CONFIG, Config)
    data = load_data(config)
    steps = steps_of(args, config, data)
    for seed in args.seeds:
        for arm in (arm for arm in args.arms if arm in ARMS):
            own, path = settings(args, config, seed, int(steps[arm]["steps"])), weights_file(args, arm, seed)
            about = {"arm": arm, "config": dataclasses.asdict(own), "data": data.digest, "start": _digest(args)}
            run = functools.partial(_run, args, arm, own, data, about, path)
            row = kept(folder(args, args.out) / "trained" / f"{arm}_{seed}.json", about, run)
            if not path.exists() or file_hash(path) != row["weights"]:
                trained = folder(args, args.out) / "trained"
                raise UserError(
                    f"{path}: missing, or of another training; remove {trained} and {path.parent} to repeat it"
                )
            print(f"{arm}, seed {seed}: {own.run.steps} steps, {path}", flush=True)


def _digest(args: argparse.Namespace) -> str:
    return SCRATCH if args.start == SCRATCH else digest_of(args.start)


def settings(args: argparse.Namespace, config: Config, seed: int, steps: int) -> Config:
    """Of a training: those of the shipped weights, but for its length and, from weights, a lower learning rate."""
    usual = config.optimiser
    rate = args.learning_rate or (usual.learning_rate if args.start == SCRATCH else min(RATE, usual.learning_rate))
    optimiser = dataclasses.replace(usual, learning_rate=rate, warmup_steps=min(usual.warmup_steps, steps // 10))
    return dataclasses.replace(config, optimiser=optimiser, run=dataclasses.replace(config.run, seed=seed, steps=steps))


def steps_of(args: argparse.Namespace, config: Config, data: TrainingData) -> dict[str, dict[str, float]]:
    """Steps of each arm that take --minutes, from the file or timed now."""
    path = folder(args, args.out) / "steps.json"
    if path.exists():
        return dict(parse_json(path.read_text(), str(path))["arms"])
    arms: dict[str, dict[str, float]] = {}
    for arm in ARMS:
        state, network = begin(args, arm, config)
        seconds = timed(config, draw_of(arm, config, data), state, step_of(arm, network, config))
        arms[arm] = {"seconds_per_step": seconds, "steps": max(1, round(60 * args.minutes / seconds))}
        print(f"{arm}: {seconds:.3f} s a step, {arms[arm]['steps']} steps in {args.minutes:g} min", flush=True)
    write_json(path, {"minutes": args.minutes, "device": jax.devices()[0].device_kind, "arms": arms})
    return arms


def begin(args: argparse.Namespace, arm: str, config: Config) -> tuple[TrainState, NetworkConfig]:
    """The state before the first step, and the network of the arm."""
    network = config.network
    if args.start == SCRATCH:
        network = dataclasses.replace(network, position_channels=3 if arm == "context" else 2)
        return init_state(init_network(root_key(config.run.seed), network), config.optimiser), network
    weights = load_weights(args.start)
    if dataclasses.replace(weights.network, dropout=network.dropout) != network:
        raise UserError(f"{args.start}: not of the network of {CONFIG}; name its weights, or --start {SCRATCH}")
    params = weights.params
    if arm == "context":
        params, network = widened(params, network)
    return init_state(params, config.optimiser), network


def draw_of(arm: str, config: Config, data: TrainingData) -> Callable[[int], tuple[Any, ...]]:
    """Number of a step -> its batch: the same patches in both arms.

    Raises:
      UserError: for images that are read on demand.
    """
    padded, seed = data.padded, config.run.seed
    if not isinstance(padded, np.ndarray):
        raise UserError(f"{config.data.path}: more than data.memory_gb; the study wants its images in memory")
    if arm == "context":
        return lambda number: draw_planes(padded, config.patches, seed, number)
    return lambda number: draw_batch(padded, config.patches, seed, number)


def step_of(arm: str, network: NetworkConfig, config: Config) -> Callable[..., tuple[TrainState, Metrics]]:
    """(key, state, *batch) -> the next state and metrics."""
    loss: Loss = (ContextLoss if arm == "context" else DenoisingLoss)(network, config.noise)
    return functools.partial(train_step, loss, config.optimiser, config.run.steps)


def _run(
    args: argparse.Namespace, arm: str, config: Config, data: TrainingData, about: dict[str, Any], path: Path
) -> dict[str, Any]:
    losses: list[np.ndarray] = []
    steps, start = config.run.steps, time.perf_counter()
    state, network = begin(args, arm, config)
    with checkpoint.open_checkpoints(path.parent, keep=1) as manager:
        saved = checkpoint.saved_config(manager)
        if saved is not None:
            if saved["about"] != json_text(about, sort_keys=True):
                raise UserError(f"{path.parent}: holds another training; choose another --runs")
            state = checkpoint.restore(manager, state) or state
        with tqdm(total=steps, initial=int(state.step), desc=f"{arm} {config.run.seed}", unit="step") as bar:

            def show(state: TrainState, metrics: Metrics) -> None:
                losses.extend(metrics.loss)
                bar.update(len(metrics.loss))
                bar.set_postfix(loss=f"{np.mean(metrics.loss):.4f}")

            def save(state: TrainState, metrics: Metrics) -> None:
                checkpoint.save(manager, state, {"about": json_text(about, sort_keys=True)})

            hooks = [Hook(every(10), show), Hook(every(max(1, steps // SAVES)), save)]
            key = jax.random.fold_in(root_key(config.run.seed), 1)
            state = fit(key, state, draw_of(arm, config, data), step_of(arm, network, config), steps, hooks)
    save_baseline(path, KIND, network, state.ema, {"frame": dataclasses.asdict(data.frame), "steps": steps})
    seconds = time.perf_counter() - start  # of this call, if it resumed, as are the losses
    last = float(np.mean(losses[-max(1, steps // 20) :])) if losses else None
    return {"weights": file_hash(path), "last_losses": last, "seconds": seconds}


def prior_of(args: argparse.Namespace, arm: str, seed: int) -> Prior:
    """Of a finished training.

    Raises:
      UserError: if its file is not there.
    """
    path = weights_file(args, arm, seed)
    if not path.exists():
        raise UserError(f"{path}: not there; run `python -m studies.context train` first, with the same flags")
    found = load_baseline(path, KIND)
    frame = from_json(Frame, found.about["frame"], f"{path}: frame")
    if found.config.position_channels == 3:
        return context_prior(found.config, found.params, frame)
    return patch_prior(found.config, found.params, frame)
