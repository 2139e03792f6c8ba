"""One random tiling against the average over all of them: docs/studies/partitions.md.

    python -m studies.partitions gaussian        closed forms of Gaussian images: bias, variance, annealing
    python -m studies.partitions train           a prior of 56 x 56 images with patches of 16, 64 tilings in all
    python -m studies.partitions measured        bias and variance of that prior, and of the shipped one (8 tilings)
    python -m studies.partitions small           20 views, 56 x 56: K = 1, 2, 4, 8, 16, 64 tilings, 192 evaluations
    python -m studies.partitions large           20 views, 256 x 256: K = 1, 2, 4, 16, 96 evaluations
    python -m studies.partitions figure          of whatever is there

small and large run each K with and without drawing less noise for what the tilings add, which `measured` has found on
validation slices. The scans are noiseless and of the reconstructing projector; settings are the preset of DDS. Every
cell has a file in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from padis_jax.benchmark.paired import interval
from padis_jax.config import Config, load_config_file
from padis_jax.errors import UserError, one_line_errors
from padis_jax.figures.save import save_figure
from padis_jax.files import write_bytes
from padis_jax.images.read import read_images
from padis_jax.images.shaping import Shaping
from padis_jax.metrics import psnr
from padis_jax.operators import ParallelBeam
from padis_jax.patches import frame_for
from padis_jax.prior import Prior
from padis_jax.runs.training import train
from padis_jax.solvers.presets import Plan, preset, tv_preset
from padis_jax.solvers.tv import total_variation
from padis_jax.split import HEAD_CT, HEAD_CT_TEST, HEAD_CT_VALIDATION
from padis_jax.weights import load_prior
from studies.cells import digest_of, kept
from studies.partitions import gaussian
from studies.partitions.figure import figure
from studies.partitions.measured import moments
from studies.partitions.reconstructions import known_of, reconstructed

SMALL, PATCH, STEPS = 56, 16, 2000
SIGMAS = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TILINGS = {"small": (1, 2, 4, 8, 16, 64), "large": (1, 2, 4, 16)}
EVALUATIONS = {"small": 192, "large": 96}
SEEDS = (0, 1)


@one_line_errors()
def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("gaussian", "train", "measured", "small", "large", "figure"))
    parser.add_argument("--out", type=Path, default=Path("results/partitions"))
    parser.add_argument("--runs", type=Path, default=Path("runs/partitions"), help="the small prior's training")
    parser.add_argument("--weights", default="weights/head_ct.safetensors", help="of images of 256 x 256")
    parser.add_argument("--slices", type=int, nargs="+", default=list(HEAD_CT_TEST), help="of small and large")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of small and large")
    parser.add_argument("--steps", type=int, default=STEPS, help="of train")
    args = parser.parse_args()
    parts: dict[str, Callable[[argparse.Namespace], str]] = {
        "gaussian": closed_forms,
        "train": trained,
        "measured": measured,
        "small": reconstructions,
        "large": reconstructions,
        "figure": drawn,
    }
    text = parts[args.part](args)
    if args.part != "figure":
        write_bytes(args.out / f"{args.part}.md", text.encode())
    print(text)


def drawn(args: argparse.Namespace) -> str:
    """The picture."""
    save_figure(args.out / "partitions.png", figure(args.out))
    return str(args.out / "partitions.png")


def closed_forms(args: argparse.Namespace) -> str:
    """Two tables."""
    lines = ["| image | P | sigma | one tiling | average of all | variance / sigma^2 |", "|---|---|---|---|---|---|"]
    for smooth in (False, True):
        clean = gaussian.covariance(16, 4.0, smooth=smooth)
        for patch in (4, 8, 16):
            frame = frame_for((16, 16), patch)
            for sigma in (1.0, 0.2, 0.05):
                e = gaussian.errors(frame, clean, sigma)
                lines.append(
                    f"| {'smooth' if smooth else 'rough'} | {patch} | {sigma:g} | {e.one / e.least:.3f} | "
                    f"{e.average / e.least:.3f} | {e.variance / sigma**2:.4f} |"
                )
    ways = {"image's own": (0, False), "all": (None, False), "one": (1, False), "one, corrected": (1, True)}
    lines += ["", f"| levels | {' | '.join(ways)} | noise added / drawn |", "|---" * (len(ways) + 2) + "|"]
    clean, frame = gaussian.covariance(12, 4.0), frame_for((12, 12), 4)
    for levels in (5, 10, 25, 100):
        ladder = np.geomspace(2, 0.01, levels)
        every = {
            name: gaussian.annealed(frame, clean, ladder, count=count, corrected=corrected)
            for name, (count, corrected) in ways.items()
        }
        cells = " | ".join(f"{gaussian.distance(every[name], clean):.4f}" for name in ways)
        more = np.trace(every["one"] - every["all"]) / np.trace(every["all"])
        lines.append(f"| {levels} | {cells} | {more:+.4f} |")
    return "\n".join(lines) + "\n"


def training_config(args: argparse.Namespace) -> Config:
    """Of the small prior: the head's slices reduced to 56 x 56, the same split."""
    base = load_config_file("configs/head_ct.py", Config)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, resize=(SMALL, SMALL)),
        network=dataclasses.replace(base.network, channel_mult=(1, 2, 2)),
        patches=dataclasses.replace(base.patches, sizes=(PATCH,), probabilities=(1.0,), batch=(64,)),
        optimiser=dataclasses.replace(base.optimiser, warmup_steps=min(200, args.steps // 10)),
        run=dataclasses.replace(base.run, steps=args.steps, checkpoint_every=500, validate_every=500),
    )


def trained(args: argparse.Namespace) -> str:
    """Trains the small prior."""
    weights, steps = train(training_config(args), args.runs)
    return f"{weights.name}: {steps} steps\n"


def weights_of(args: argparse.Namespace, size: str) -> Path:
    """The file of the small prior or of the shipped one."""
    return args.runs / "weights.safetensors" if size == "small" else Path(args.weights)


def prior_of(args: argparse.Namespace, size: str, tilings: int = 1) -> Prior:
    """The small prior or the shipped one."""
    path = weights_of(args, size)
    if not path.is_file():
        raise UserError(f"{path}: not there; run `python -m studies.partitions train` first, or name it")
    return load_prior(path, tilings=tilings, mirror=False)


def slices(size: str, chosen: list[int] | tuple[int, ...]) -> np.ndarray:
    """Of the head CT, [n, H, W, 1], in image units."""
    shaping = Shaping(resize=(SMALL, SMALL)) if size == "small" else Shaping()
    images = read_images(HEAD_CT, shaping=shaping)
    return np.asarray(images.images[list(chosen)], np.float32)


def measured(args: argparse.Namespace) -> str:
    """Moments on validation slices."""
    lines = ["| prior | sigma | MSE, one | MSE, average | variance | variance / sigma^2 |", "|---|---|---|---|---|---|"]
    for size, count, seeds in (("large", 8, (0,)), ("small", None, (0, 1, 2))):
        if size == "small" and not weights_of(args, size).is_file():
            print("note: the small prior is left out: python -m studies.partitions train makes it")
            continue

        def run(size: str = size, count: int | None = count, seeds: tuple[int, ...] = seeds) -> dict[str, Any]:
            found = moments(prior_of(args, size), slices(size, HEAD_CT_VALIDATION), SIGMAS, seeds=seeds, count=count)
            return {"levels": [row._asdict() for row in found]}

        about = {"weights": digest_of(str(weights_of(args, size))), "tilings": count, "seeds": seeds}
        for row in kept(args.out / f"moments_{size}.json", about, run)["levels"]:
            lines.append(
                f"| {size} | {row['sigma']:g} | {row['one']:.3e} | {row['average']:.3e} | {row['variance']:.3e} | "
                f"{row['variance'] / row['sigma'] ** 2:.4f} |"
            )
    return "\n".join(lines) + "\n"


def reconstructions(args: argparse.Namespace) -> str:
    """PSNR by K, and paired differences from K = 1."""
    size, path = args.part, args.out / f"moments_{args.part}.json"
    if not path.exists():
        raise UserError(f"{path}: not there; run `python -m studies.partitions measured` first")
    rows, images = json.loads(path.read_text())["row"]["levels"], slices(args.part, args.slices)
    side = images.shape[1]
    angles = (np.arange(20) + 0.5) * np.pi / 20
    operator = ParallelBeam(image_shape=(side, side), angles=angles, detector_count=2 * side)
    cells = [(k, c, i, s) for s in args.seeds for i in range(len(images)) for k in TILINGS[size] for c in (False, True)]
    found: dict[tuple[int, bool, int, int], float] = {}
    for tilings, corrected, index, seed in tqdm(cells, desc=size, unit="image"):
        file = args.out / size / f"{args.slices[index]}_{seed}_{tilings}_{int(corrected)}.json"
        about = {
            "weights": digest_of(str(weights_of(args, size))),
            "preset": plan_of(size, tilings).described(),
            "variances": [row["variance"] for row in rows] if corrected else [],
        }
        run = functools.partial(_cell, args, rows, operator, images[index], tilings, corrected, seed)
        found[tilings, corrected, index, seed] = kept(file, about, run)["psnr"]
    return table(size, found)


def plan_of(size: str, tilings: int) -> Plan:
    """The preset of DDS with as many evaluations for each K."""
    return preset("dds", "ct", EVALUATIONS[size] // tilings)


def _cell(
    args: argparse.Namespace, rows: list[dict[str, float]], operator: Any, image: np.ndarray, tilings: int,
    corrected: bool, seed: int,
) -> dict[str, float]:  # fmt: skip
    prior = prior_of(args, args.part, tilings)
    of = prior.frame.margin[0] * prior.frame.margin[1]
    plan = plan_of(args.part, tilings)
    y = operator(jnp.asarray(image[..., 0]))
    start = total_variation(y, operator, settings=tv_preset("ct")).image[..., None]
    found = reconstructed(
        jax.random.key(seed),
        y,
        operator,
        prior,
        start,
        settings=plan.settings,
        levels=plan.levels,
        sigma_max=plan.sigma_max,
        sigma_min=plan.sigma_min,
        known=known_of(rows, tilings, of, corrected=corrected),
    )
    return {"psnr": float(psnr(np.clip(np.asarray(found), 0, 1), image)), "levels": plan.levels}


def table(size: str, found: dict[tuple[int, bool, int, int], float]) -> str:
    """Means, and means over images of the differences from one tiling without correction, with 95% intervals."""
    lines = ["| K | levels | corrected | PSNR (dB) | less K = 1, paired (95%) |", "|---|---|---|---|---|"]
    images, seeds = sorted({cell[2] for cell in found}), sorted({cell[3] for cell in found})

    def values(tilings: int, corrected: bool) -> np.ndarray:
        return np.array([np.mean([found[tilings, corrected, i, s] for s in seeds]) for i in images])

    for tilings in TILINGS[size]:
        for corrected in (False, True):
            own = values(tilings, corrected)
            lines.append(
                f"| {tilings} | {EVALUATIONS[size] // tilings} | {'yes' if corrected else 'no'} | {own.mean():.2f} | "
                f"{interval(list(own - values(1, False))).text()} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
