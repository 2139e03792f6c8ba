"""Trains the supervised yardstick, FBP + U-Net, for one simulated scan, on the slices that the prior was trained on.

    python -m benchmarks.supervised --scan.views 20 --out runs/supervised_20.safetensors
    python -m benchmarks.supervised --scan.protocol paper --steps 200 --limit 8 --out runs/quick.safetensors

Each training slice is measured --draws times with fresh noise and reconstructed by the operator's quick image; the
network learns to mend these. Test and validation slices of the head CT and their neighbours are left out (split.py);
other images are all trained on. Other flags are those of sample.py, of which --image.path, --scan and --seed count.
The file is read by padis_jax.baselines.file.load_baseline and applied by padis_jax.baselines.supervised.restore.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from padis_jax import experiment as ex
from padis_jax.baselines.file import SUPERVISED, save_baseline
from padis_jax.baselines.fit import fit
from padis_jax.baselines.supervised import restore, supervised_loss
from padis_jax.cli.arguments import parse
from padis_jax.errors import UserError, one_line_errors
from padis_jax.images import ImageSet, read_images
from padis_jax.metrics import psnr
from padis_jax.split import split_slices
from padis_jax.unet import NetworkConfig, init_network


@one_line_errors()
def main() -> None:
    """Simulates the pairs, trains, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--draws", type=int, default=4, help="measurements of each slice")
    parser.add_argument("--limit", type=int, default=0, help="train on so many slices, spread evenly; 0 for all")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 3, 3])
    args, rest = parser.parse_known_args()
    base = parse(ex.Experiment, rest, default=ex.Experiment(), prog="benchmarks.supervised", description=__doc__ or "")
    if min(args.steps, args.batch, args.draws) < 1 or args.limit < 0:
        raise UserError("--steps, --batch and --draws must be at least 1, --limit not negative")

    images = read_images(base.image.path)
    chosen = training_slices(images, base.image.path, args.limit)
    try:
        config = NetworkConfig(
            image_channels=images.images.shape[-1],
            position_channels=0,
            model_channels=args.channels,
            channel_mult=tuple(args.multipliers),
            num_blocks=1,
        )
        for side in images.images.shape[1:3]:
            config.check_patch(side)
    except ValueError as error:
        raise UserError(str(error)) from error
    starts, truths = pairs(base, images, chosen, args.draws)

    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        index = np.random.default_rng([base.seed, step]).integers(0, len(starts), args.batch)
        return starts[index], truths[index]

    params = jax.jit(init_network, static_argnums=1)(jax.random.key(base.seed), config)
    with tqdm(total=args.steps, desc="training", unit="step") as bar:

        def progress(done: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3e}")

        params, losses = fit(
            functools.partial(supervised_loss, config),
            params,
            draw,
            steps=args.steps,
            learning_rate=args.learning_rate,
            seed=base.seed,
            progress=progress,
        )
    about = {
        "scan": dataclasses.asdict(base.scan),
        "images": base.image.path,
        "slices": chosen,
        "draws": args.draws,
        "steps": args.steps,
        "batch": args.batch,
        "learning_rate": args.learning_rate,
        "seed": base.seed,
        "last_losses": float(losses[-max(1, args.steps // 20) :].mean()),
    }
    save_baseline(args.out, SUPERVISED, config, params, about)
    shown = jax.jit(restore, static_argnums=0)(config, params, starts[:1])
    print(f"{args.out} written; first training pair: {float(psnr(starts[0], truths[0])):.2f} dB before and")
    print(f"{float(psnr(shown[0], truths[0])):.2f} dB after (an image that it was trained on: no measure of quality)")


def training_slices(images: ImageSet, path: str, limit: int) -> list[int]:
    """Indices to train on: those that are not held out of the head CT, or all images of another file."""
    count = len(images.names)
    found = list(split_slices(count).train) if path == ex.DEFAULT_IMAGE else list(range(count))
    if not limit or limit >= len(found):
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, limit).round().astype(int)]


def pairs(base: ex.Experiment, images: ImageSet, chosen: list[int], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(quick images, truths), both [slices * draws, H, W, C]; draws of a slice differ in their noise."""
    first = dataclasses.replace(base, image=dataclasses.replace(base.image, index=chosen[0]))
    operator = ex.load_scene(first, images).operator
    starts, truths = [], []
    for index in tqdm(chosen, desc="measuring", unit="slice"):
        for number in range(draws if base.scan.protocol == "honest" else 1):
            # Keys of their own: 0 and 1 below an image's key are those of an experiment.
            key = jax.random.fold_in(jax.random.fold_in(ex.image_key(base.seed, index), 2), number)
            one = images.select([index])
            starts.append(np.asarray(operator.start(ex.measure(base, key, one, operator).sinogram)))
            truths.append(one.images[0])
    return np.stack(starts).reshape(len(truths), *truths[0].shape), np.stack(truths)


if __name__ == "__main__":
    main()
