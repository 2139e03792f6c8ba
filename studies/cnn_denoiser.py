"""Trains the plain CNN denoiser for plug-and-play on crops of the slices that the prior was trained on.

    python -m studies.cnn_denoiser --out runs/cnn.safetensors
    python -m studies.cnn_denoiser --images pictures/ --steps 500 --out runs/cnn.safetensors

Test and validation slices of the head CT and their neighbours are left out (split.py); other images are all trained on.
padis_jax.baselines.file.load_baseline reads the file, and padis_jax.baselines.cnn.cnn_prior makes a denoiser of it.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from padis_jax.baselines.cnn import CNNConfig, cnn_loss, init_cnn
from padis_jax.baselines.file import CNN, save_baseline
from padis_jax.batches import crop_batch
from padis_jax.errors import UserError, one_line_errors
from padis_jax.images import read_images
from padis_jax.runs.image_config import DEFAULT_IMAGE
from studies.training import check_counts, train, training_parser, training_slices


@one_line_errors()
def main() -> None:
    """Trains and writes the file."""
    parser = training_parser(__doc__ or "", batch=8)
    parser.add_argument("--images", default=DEFAULT_IMAGE)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    images = read_images(args.images)
    check_counts(args, "patch")
    if args.patch > min(images.images.shape[1:3]):
        raise UserError(f"--patch {args.patch}: larger than the images of {images.images.shape[1:3]} pixels")
    chosen = training_slices(images, args.images, args.limit)
    clean = images.images[chosen]
    try:
        config = CNNConfig(image_channels=clean.shape[-1], features=args.features, layers=args.layers)
    except ValueError as error:
        raise UserError(str(error)) from error

    def draw(step: int) -> tuple[np.ndarray]:
        rng = np.random.default_rng([args.seed, step])
        return (crop_batch(rng, clean, args.patch, args.batch, flips=True).patches,)

    params, run = train(
        functools.partial(cnn_loss, config), init_cnn(jax.random.key(args.seed), config), draw, args, args.seed
    )
    about = {"images": args.images, "slices": chosen, "patch": args.patch, **run}
    save_baseline(args.out, CNN, config, params, about)
    print(f"{args.out} written; mean loss of the last steps {about['last_losses']:.4f} (an untrained network: 1)")


if __name__ == "__main__":
    main()
