"""One accelerator for at most eight minutes: trains the head CT's prior, then measures the paper's network.

    python -m studies.gpu --out results/gpu                                 from random parameters
    python -m studies.gpu --start-weights weights/head_ct.safetensors --learning-rate 3e-4 --train 300
    python -m studies.gpu --train 5 --seconds 60 --factor 1 --inner 2       whether it runs at all, on a CPU

Training takes --train seconds of wall time, compilation included, in bfloat16, on batches that the device draws itself,
--factor times those of the config, --inner steps a call. The learning rate follows the time instead of the step: it
rises over the first 2 % and falls as a half cosine. weights.safetensors (the average) is written every --write-every
seconds and can be used at any time; a checkpoint follows every two minutes, from which the same command continues.

Then, while --seconds last, inference and training step of the paper's network (configs/aapm_ct.py, bfloat16, random
patches) are timed: FLOP as XLA counts them before it optimises, their share of the device's peak (peaks.py, or --peak),
and the time beside that of the roofline. result.json is written after every part. docs/performance.md says how to read
it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from padis_jax import checkpoint
from padis_jax.config import Config, OptimiserConfig, load_config_file
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import write_json
from padis_jax.loss import DenoisingLoss
from padis_jax.positions import plane_positions
from padis_jax.runs.training import origin_of, provenance
from padis_jax.runs.training_data import TrainingData, first_state, load_data, training_blocks
from padis_jax.runs.validation import validate
from padis_jax.training import Loss, TrainState
from padis_jax.weights import save_weights
from studies.speed.peaks import Peak, peak_of
from studies.speed.throughput import flops_of, gradient, inference, measured, training_step

LEFT = 45.0  # seconds that a measurement is not begun without
SAVE_EVERY = 120.0
Draw = tuple[int, int, bool]  # side of the patches, how many, whether they are mirrored


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    """Trains, then measures."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--seconds", type=float, default=480.0, help="of everything")
    parser.add_argument("--train", type=float, default=300.0, help="seconds of training; 0 for none")
    parser.add_argument("--config", default="configs/head_ct.py", help="of the training")
    parser.add_argument("--paper", default="configs/aapm_ct.py", help="of the network that is measured")
    parser.add_argument("--start-weights", default="", help="weights to begin with")
    parser.add_argument("--learning-rate", type=float, help="instead of the config's")
    parser.add_argument("--factor", type=int, default=8, help="times the batches of the config")
    parser.add_argument("--inner", type=int, default=20, help="steps in a call")
    parser.add_argument("--write-every", type=float, default=30.0, help="seconds between weights files")
    parser.add_argument("--peak", type=float, help="TFLOP/s in bfloat16, of a device that peaks.py does not know")
    args = parser.parse_args(argv)
    if min(args.factor, args.inner) < 1 or not 0 <= args.train <= args.seconds:
        raise UserError("--factor and --inner must be at least 1, --train between 0 and --seconds")
    device = jax.devices()[0]
    peak = Peak(args.peak * 1e12, math.inf) if args.peak else peak_of(device.device_kind)
    result: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, "peak": peak and peak._asdict()}

    def note(**more: Any) -> None:
        result.update(more, seconds=time.perf_counter() - begin)
        write_json(args.out / "result.json", result)
        print(f"{result['seconds']:6.1f} s  {', '.join(more)}", flush=True)

    note()
    if args.train:
        note(training=train(config_of(args), args, begin + args.train, peak))
    paper = load_config_file(args.paper, Config)
    for name, of in (("inference", inference), ("training step", training_step)):
        left = begin + args.seconds - time.perf_counter()
        note(**{name: measured(name, paper, of, peak, left / 3) if left > LEFT else "left out: no time left"})


def config_of(args: argparse.Namespace) -> Config:
    """The config with what the flags say, in bfloat16."""
    config = load_config_file(args.config, Config)
    batch = tuple(args.factor * count for count in config.patches.batch)
    rate = args.learning_rate or config.optimiser.learning_rate
    return dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, dtype="bfloat16"),
        patches=dataclasses.replace(config.patches, batch=batch),
        optimiser=dataclasses.replace(config.optimiser, learning_rate=rate),
        run=dataclasses.replace(config.run, start_weights=args.start_weights),
    )


def rate_at(optimiser: OptimiserConfig, share: float) -> float:
    """The learning rate after a share of the time, 0 to 1: up in the first 2 %, then a half cosine."""
    share = min(max(share, 0.0), 1.0)
    low = optimiser.final_fraction
    down = low + (1 - low) * (1 + math.cos(math.pi * share)) / 2
    return optimiser.learning_rate * min(1.0, share / 0.02) * down


def draw(key: Array, padded: Array, plane: Array, what: Draw) -> tuple[Array, Array]:
    """A batch on the device: crops of padded images [n, Hp, Wp, C] and of the positions [Hp, Wp, 2], uniform.

    Returns:
      Patches [b, p, p, C] and positions [b, p, p, 2]; a mirrored patch has the positions of its place in the mirrored
      image, as in `batches.crop_batch`.
    """
    side, count, flips = what
    n, height, width, channels = padded.shape
    keys = jax.random.split(key, 4)
    image = jax.random.randint(keys[0], (count,), 0, n)
    top = jax.random.randint(keys[1], (count,), 0, height - side + 1)
    left = jax.random.randint(keys[2], (count,), 0, width - side + 1)
    mirrored = jax.random.bernoulli(keys[3], 0.5, (count,)) if flips else jnp.zeros(count, bool)

    def one(image: Array, top: Array, left: Array, mirror: Array) -> tuple[Array, Array]:
        column = jnp.where(mirror, width - side - left, left)
        patch = lax.dynamic_slice(padded, (image, top, column, 0), (1, side, side, channels))[0]
        where = lax.dynamic_slice(plane, (top, left, 0), (side, side, plane.shape[-1]))
        return jnp.where(mirror, patch[:, ::-1], patch), where

    return jax.vmap(one)(image, top, left, mirrored)


def transform(optimiser: OptimiserConfig) -> optax.GradientTransformation:
    """Clipping and Adam with a learning rate of 1, which each step scales."""
    clip = optax.clip_by_global_norm(optimiser.clip_norm) if optimiser.clip_norm else optax.identity()
    return optax.chain(clip, optax.adam(1.0))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def advance(
    loss: Loss,
    optimiser: OptimiserConfig,
    what: Draw,
    key: Array,
    state: TrainState,
    rates: Array,
    padded: Array,
    plane: Array,
) -> tuple[TrainState, Array]:
    """As many steps as there are learning rates; a step whose loss or gradient is not finite changes nothing.

    Returns:
      The state and the losses.
    """

    def one(state: TrainState, rate: Array) -> tuple[TrainState, Array]:
        draw_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = draw(draw_key, padded, plane, what)
        value, grads = jax.value_and_grad(loss)(state.params, loss_key, *batch)
        updates, moments = transform(optimiser).update(grads, state.optimiser)
        params = jax.tree.map(lambda old, update: old + rate * update, state.params, updates)
        seen = state.seen + what[1]
        decay = jnp.exp2(-what[1] / jnp.minimum(optimiser.ema_half_life, optimiser.ema_ramp * seen))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        good = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        proposed = TrainState(state.step, seen, params, ema, moments)
        kept = jax.tree.map(functools.partial(jnp.where, good), proposed, state)
        return kept._replace(step=state.step + 1), value

    return lax.scan(one, state, rates)


def train(config: Config, args: argparse.Namespace, end: float, peak: Peak | None) -> dict[str, Any]:
    """Trains until the clock says `end`, from the newest checkpoint of --out if there is one; writes weights."""
    if config.patches.depth > 1:
        raise UserError(f"{args.config}: patches of {config.patches.depth} slices; this trains on images: use train.py")
    data = load_data(config)
    if not isinstance(data.padded, np.ndarray):
        raise UserError(f"{config.data.path}: larger than data.memory_gb, but the device draws from all of it")
    padded, plane = jnp.asarray(data.padded), jnp.asarray(plane_positions(data.frame.padded_shape))
    loss, patches = DenoisingLoss(config.network, config.noise), config.patches
    state = first_state(dataclasses.replace(config, network=_plain(config)), data.frame)
    state = state._replace(optimiser=transform(config.optimiser).init(state.params))
    rng, begin, flops = np.random.default_rng(config.run.seed), time.perf_counter(), 0.0
    losses: list[list[float]] = []
    work = [flops_of(gradient(loss), state.params, *_shapes(config, i)) for i in range(len(patches.sizes))]
    with checkpoint.open_checkpoints(args.out, keep=1) as manager:
        origin = origin_of(checkpoint.saved_config(manager), config.run.start_weights)
        about = {"config": dataclasses.asdict(config), "start_weights": origin} | data.about()
        state = checkpoint.restore(manager, state) or state
        first, written, saved = int(state.step), begin, begin
        before = _validation(config, data, state)
        compiled: dict[int, float] = {}  # size -> seconds of its first call, which are no measure of speed
        while (now := time.perf_counter()) < end or int(state.step) == first:
            index = int(rng.choice(len(patches.sizes), p=patches.probabilities))
            what = patches.sizes[index], patches.batch[index], patches.flips
            share = (now - begin) / max(end - begin, 1e-9)
            rates = jnp.full(args.inner, rate_at(config.optimiser, share), jnp.float32)
            key = jax.random.key(config.run.seed)
            state, values = advance(loss, config.optimiser, what, key, state, rates, padded, plane)
            losses.append([int(state.step), float(jnp.mean(values))])  # waits for the device
            took = time.perf_counter() - now
            if index not in compiled:
                compiled[index] = took
            else:
                flops += args.inner * work[index]
            if time.perf_counter() - written > args.write_every:
                _write(config, args, data, state, origin)
                written = time.perf_counter()
            if time.perf_counter() - saved > SAVE_EVERY:
                checkpoint.save(manager, state, about)
                saved = time.perf_counter()
        spent = time.perf_counter() - begin
        _write(config, args, data, state, origin)
        checkpoint.save(manager, state, about, wait=True)
    running = max(spent - sum(compiled.values()), 1e-9)
    return {
        "steps": [first, int(state.step)],
        "patches": float(state.seen),
        "seconds": spent,
        "seconds_of_first_calls": sum(compiled.values()),
        "tflops": flops / running / 1e12,
        "share_of_peak": flops / running / peak.flops if peak else None,
        "validation_loss": [before, _validation(config, data, state)],
        "losses": losses,
    }


def _plain(config: Config) -> Any:
    return dataclasses.replace(config.network, dtype="float32")


def _validation(config: Config, data: TrainingData, state: TrainState) -> float | None:
    return None if data.validation is None else validate(config.network, config.noise, state.ema, data.validation)  # type: ignore[arg-type]


def _write(config: Config, args: argparse.Namespace, data: TrainingData, state: TrainState, origin: Any) -> None:
    about = provenance(config, state, origin) | {"training_images": len(data.padded)}
    file, ema = args.out / "weights.safetensors", jax.device_get(state.ema)
    frame, window, blocks = data.frame, data.window, training_blocks(data)
    save_weights(file, ema, _plain(config), frame, window, about, dtype=config.run.weights_dtype, blocks=blocks)


def _shapes(config: Config, index: int) -> tuple[Any, ...]:
    side, count = config.patches.sizes[index], config.patches.batch[index]
    channels = config.network.image_channels, 2
    arrays = [jax.ShapeDtypeStruct((count, side, side, c), jnp.float32) for c in channels]
    return (jax.eval_shape(lambda: jax.random.key(0)), *arrays)


if __name__ == "__main__":
    main()
