"""Trains the supervised yardstick, FBP + U-Net, for one simulated scan, on the slices that the prior was trained on.

    python -m benchmarks.supervised --scan.views 20 --out runs/supervised_20.safetensors
    python -m benchmarks.supervised --scan.protocol paper --steps 200 --limit 8 --out runs/quick.safetensors

Each training slice is measured --draws times with fresh noise and reconstructed by the operator's quick image; the
network learns to mend these. Test and validation slices of the head CT and their neighbours are left out (split.py);
other images are all trained on. Other flags are those of sample.py, of which --image.path, --scan and --seed count.
The file is read by padis_jax.baselines.file.load_baseline and applied by padis_jax.baselines.supervised.restore.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.training import check_counts, train, training_parser, training_slices
from padis_jax import experiment as ex
from padis_jax.baselines.file import SUPERVISED, save_baseline
from padis_jax.baselines.supervised import restore, supervised_loss
from padis_jax.cli.arguments import parse
from padis_jax.errors import UserError, one_line_errors
from padis_jax.images import ImageSet, read_images
from padis_jax.metrics import psnr
from padis_jax.unet import NetworkConfig, init_network


@one_line_errors()
def main() -> None:
    """Simulates the pairs, trains, and writes the file."""
    parser = training_parser(__doc__ or "", batch=2)
    parser.add_argument("--draws", type=int, default=4, help="measurements of each slice")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 3, 3])
    args, rest = parser.parse_known_args()
    base = parse(ex.Experiment, rest, default=ex.Experiment(), prog="benchmarks.supervised", description=__doc__ or "")
    check_counts(args, "draws")

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
    params, run = train(functools.partial(supervised_loss, config), params, draw, args, base.seed)
    scan = dataclasses.asdict(base.scan)
    about = {"scan": scan, "images": base.image.path, "slices": chosen, "draws": args.draws, **run}
    save_baseline(args.out, SUPERVISED, config, params, about)
    shown = jax.jit(restore, static_argnums=0)(config, params, starts[:1])
    print(f"{args.out} written; first training pair: {float(psnr(starts[0], truths[0])):.2f} dB before and")
    print(f"{float(psnr(shown[0], truths[0])):.2f} dB after (an image that it was trained on: no measure of quality)")


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
