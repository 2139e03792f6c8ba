"""Trains the supervised baseline, FBP + U-Net, for one measurement, on the slices that the prior was trained on.

    python -m studies.supervised --problem ct20 --scan.protocol paper --out runs/supervised_ct20.safetensors
    python -m studies.supervised --problem sr4 --image.path data/photos.npy --out runs/supervised_sr4.safetensors
    python -m studies.supervised --scan.views 30 --steps 200 --limit 8 --out runs/quick.safetensors

The first two are for a problem of docs/problems.md and serve `python -m padis_jax.benchmark --supervised FILE`, whose
CT is noiseless (--scan.protocol paper); without --problem it is the parallel scan of sample.py. Each training slice is
measured --draws times, with fresh noise, photons or masks, and reconstructed by the operator's quick image; the network
learns its difference from the truth. Test and validation slices of the head CT and their neighbours are left out
(split.py); other images are all trained on. Other flags are those of sample.py, of which --problem, --noise,
--image.path, --scan and --seed count. The file is read by padis_jax.baselines.file.load_baseline and applied by
padis_jax.baselines.supervised.restore.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from padis_jax.baselines.file import SUPERVISED, save_baseline
from padis_jax.baselines.supervised import restore, supervised_loss
from padis_jax.cli.solver_flags import parse_experiment
from padis_jax.errors import UserError, one_line_errors
from padis_jax.images import ImageSet, read_images
from padis_jax.metrics import psnr
from padis_jax.operators import RayTransform
from padis_jax.problems.registry import PROBLEMS
from padis_jax.runs.case import image_key, simulated_case
from padis_jax.runs.config import Experiment
from padis_jax.unet import NetworkConfig, init_network
from studies.training import check_counts, train, training_parser, training_slices


@one_line_errors()
def main() -> None:
    """Simulates the pairs, trains, and writes the file."""
    parser = training_parser(__doc__ or "", batch=2)
    parser.add_argument("--draws", type=int, default=4, help="measurements of each slice")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 3, 3])
    args, rest = parser.parse_known_args()
    base = parse_experiment(rest, default=Experiment(), prog="studies.supervised", description=__doc__ or "")
    check_counts(args, "draws")
    if base.problem and base.problem not in PROBLEMS:
        names = ", ".join(PROBLEMS)
        raise UserError(f"--problem {base.problem}: a mask or kernel from a file has no name; take one of {names}")

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

    params = init_network(jax.random.key(base.seed), config)
    params, run = train(functools.partial(supervised_loss, config), params, draw, args, base.seed)
    trained_for = measured_as(base, (images.images.shape[1], images.images.shape[2]))
    about = {**trained_for, "images": base.image.path, "slices": chosen, "draws": args.draws, **run}
    save_baseline(args.out, SUPERVISED, config, params, about)
    shown = jax.jit(restore, static_argnums=0)(config, params, starts[:1])
    print(f"{args.out} written; first training pair: {float(psnr(starts[0], truths[0])):.2f} dB before and")
    print(f"{float(psnr(shown[0], truths[0])):.2f} dB after (an image that it was trained on: no measure of quality)")


def measured_as(base: Experiment, image_shape: tuple[int, int]) -> dict[str, Any]:
    """What the file says of the measurement: the scan, or the problem, as the benchmark asks for it (networks.py)."""
    scan = dataclasses.asdict(base.scan)
    if not base.problem:
        return {"scan": scan}
    problem = PROBLEMS[base.problem]
    sigma = problem.sigma if base.noise is None else base.noise
    about = {
        "problem": base.problem,
        "definition": problem.definition,
        "sigma": sigma,
        "image_shape": list(image_shape),
    }
    return about | ({name: scan[name] for name in ("protocol", "photons", "pixel_mm")} if problem.tomography else {})


def pairs(base: Experiment, images: ImageSet, chosen: list[int], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(quick images, truths), both [slices * draws, H, W, C]; one draw where nothing is random."""
    operator, starts, truths = None, [], []
    for index in tqdm(chosen, desc="measuring", unit="slice"):
        one = dataclasses.replace(base, image=dataclasses.replace(base.image, index=index))
        for number in range(draws):
            # A key of its own: 0, 1 and 2 below an image's key are those of an experiment.
            key = jax.random.fold_in(jax.random.fold_in(image_key(base.seed, index), 3), number)
            case = simulated_case(one, images, key=key, operator=operator)
            if isinstance(case.operator, RayTransform):
                operator = case.operator  # the same for all images, and long to build
            starts.append(np.asarray(quick(case.operator, case.measurement.y)).reshape(case.image_shape))
            truths.append(case.source.images[0])
            if base.scan.protocol == "paper" and operator is not None:
                break  # tomography without noise: all draws are alike
    return np.stack(starts), np.stack(truths)


@jax.jit
def quick(operator: Any, y: Array) -> Array:
    """The operator's quick image of a measurement."""
    return operator.start(y)


if __name__ == "__main__":
    main()
