"""What the commands that train a network to compare with (cnn_denoiser.py, supervised.py) share."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from padis_jax.config import OptimiserConfig
from padis_jax.errors import UserError
from padis_jax.images import ImageSet
from padis_jax.split import is_head_ct, limited, split_slices
from padis_jax.training import Loss, Metrics, TrainState, init_state, train_step
from padis_jax.training_loop import Hook, every, fit
from padis_jax.unet import Params


def training_parser(description: str, *, batch: int) -> argparse.ArgumentParser:
    """The flags of both."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--limit", type=int, default=0, help="train on so many slices, spread evenly; 0 for all")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    return parser


def check_counts(args: argparse.Namespace, *counts: str) -> None:
    """Raises UserError unless steps, batch and the counts of these names are at least 1, and the limit not negative."""
    names = ("steps", "batch", *counts)
    if min(getattr(args, name) for name in names) < 1 or args.limit < 0:
        flags = ", ".join(f"--{name}" for name in names)
        raise UserError(f"{flags} must be at least 1, --limit not negative")


def training_slices(images: ImageSet, path: str, limit: int) -> list[int]:
    """Indices to train on: those that are not held out of the head CT, or all images of another file.

    Args:
      images: the images.
      path: what was named; any spelling of the head CT's path, or a copy of it, is the head CT.
      limit: how many, spread evenly; 0 for all.
    """
    count = len(images.names)
    return list(limited(split_slices(count).train if is_head_ct(path) else range(count), limit))


def train(
    loss: Loss, params: Params, draw: Callable[[int], tuple[Any, ...]], args: argparse.Namespace, seed: int
) -> tuple[Params, dict[str, Any]]:
    """Runs `fit` under a bar; returns the last parameters (not their average), and what the file says of the run."""
    optimiser = OptimiserConfig(learning_rate=args.learning_rate, warmup_steps=min(500, args.steps // 10))
    losses: list[np.ndarray] = []
    with tqdm(total=args.steps, desc="training", unit="step") as bar:

        def show(state: TrainState, metrics: Metrics) -> None:
            losses.extend(metrics.loss)
            bar.update(len(metrics.loss))
            bar.set_postfix(loss=f"{metrics.loss[-1]:.3e}")

        step = functools.partial(train_step, loss, optimiser, args.steps)
        state = fit(
            jax.random.key(seed), init_state(params, optimiser), draw, step, args.steps, [Hook(every(10), show)]
        )
    return state.params, {
        "steps": args.steps,
        "batch": args.batch,
        "learning_rate": args.learning_rate,
        "seed": seed,
        "last_losses": float(np.mean(losses[-max(1, args.steps // 20) :])),
    }
