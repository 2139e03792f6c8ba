"""The size of the patch by noise level: docs/studies/patch_size.md.

    python -m studies.patch_size errors          which size denoises best at which level, validation slices
    python -m studies.patch_size images          20-view CT by plug-and-play and DDS: each size, and the best by level
    python -m studies.patch_size figure          errors of the test slices

The shipped network was trained on patches of 16, 32 and 56 pixels of one padded plane, and denoises any of them:
positions stay those of that plane. A tiling of another size covers the image and what of the plane its tiles reach, at
a random corner.
`images` takes at every level the size that had the smallest error there, on validation slices. Every cell has a file
in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax
from jax.tree_util import Partial
from matplotlib.figure import Figure
from tqdm import tqdm

from padis_jax.benchmark.paired import interval
from padis_jax.denoiser import denoise_patches
from padis_jax.errors import one_line_errors
from padis_jax.figures import save_figure
from padis_jax.figures.style import COLOURS, dress
from padis_jax.files import write_bytes
from padis_jax.images import read_images
from padis_jax.metrics import psnr
from padis_jax.operators import ParallelBeam
from padis_jax.patches import Frame
from padis_jax.positions import plane_positions
from padis_jax.prior import Prior
from padis_jax.solvers.presets import preset, tv_preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import total_variation
from padis_jax.split import HEAD_CT, HEAD_CT_TEST, HEAD_CT_VALIDATION
from padis_jax.unet import NetworkConfig, Params
from padis_jax.weights import Weights, load_weights
from studies.cells import digest_of, kept

SIZES = (16, 32, 56)
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = 2  # tilings and noises of each slice and level
SOLVERS = ("pnp_admm", "dds")
EVALUATIONS = 25


@one_line_errors()
def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("errors", "images", "figure"))
    parser.add_argument("--weights", default="weights/head_ct.safetensors")
    parser.add_argument("--slices", type=int, nargs="+", default=list(HEAD_CT_TEST), help="of the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of images")
    parser.add_argument("--out", type=Path, default=Path("results/patch_size"))
    args = parser.parse_args()
    if args.part == "figure":
        print(figure(args))
        return
    text = (errors if args.part == "errors" else images)(args)
    write_bytes(args.out / f"{args.part}.md", text.encode())
    print(text)


def tiled(
    config: NetworkConfig, frame: Frame, size: int, params: Params, key: Array, plane: Array, sigma: Array
) -> Array:
    """A plane [Hp, Wp, C] of the frame, denoised by one random tiling of patches of `size`; 0 outside of the tiles."""
    parts = [
        _places(side, height, margin, size)
        for side, height, margin in zip(frame.padded_shape, frame.image_shape, frame.margin, strict=True)
    ]
    sides, low, high = zip(*parts, strict=True)
    corner = jax.random.randint(key, (2,), jnp.asarray(low), jnp.asarray(high) + 1)
    at = (corner[0], corner[1], jnp.int32(0))

    def cut(array: Array) -> Array:
        covered = lax.dynamic_slice(array, at, (*sides, array.shape[-1]))
        return rearrange(covered, "(ny p) (nx q) c -> (ny nx) p q c", p=size, q=size)

    patches, where = cut(plane), cut(jnp.asarray(plane_positions(frame.padded_shape)))
    clean = denoise_patches(config, params, patches, where, jnp.broadcast_to(sigma, patches.shape[:1]))
    covered = rearrange(clean, "(ny nx) p q c -> (ny p) (nx q) c", ny=sides[0] // size)
    return lax.dynamic_update_slice(jnp.zeros_like(plane), covered, at)


def _places(side: int, image: int, margin: int, size: int) -> tuple[int, int, int]:
    """Along an axis: what the tiles cover, and the first and last corner at which they cover the image.

    No more tiles than that needs at any corner, and `size` corners at most: further ones repeat the seams.
    """
    covered = min(side // size, -(-image // size) + 1) * size
    low, high = max(0, margin + image - covered), min(margin, side - covered)
    return covered, low, min(high, low + size - 1)


def by_level(
    config: NetworkConfig,
    frame: Frame,
    sizes: tuple[int, ...],
    bounds: tuple[float, ...],
    params: Params,
    key: Array,
    plane: Array,
    sigma: Array,
) -> Array:
    """The same with sizes[i] where sigma is at least bounds[i - 1] and below bounds[i]; bounds rise."""
    which = jnp.searchsorted(jnp.asarray(bounds, jnp.float32), sigma, side="right") if bounds else jnp.int32(0)
    ways = [Partial(Static(config, frame, size), params) for size in sizes]
    return lax.switch(which, [lambda *args, way=way: way(*args) for way in ways], key, plane, sigma)


class Static:
    """(params, key, plane, sigma) -> plane with one size; compared by what it holds, so that code is shared."""

    def __init__(self, config: NetworkConfig, frame: Frame, size: int) -> None:
        self.held = (config, frame, size)

    def __call__(self, params: Params, key: Array, plane: Array, sigma: Array) -> Array:
        return tiled(*self.held, params, key, plane, sigma)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.held == other.held

    def __hash__(self) -> int:
        return hash(self.held)


class ByLevel(Static):
    """(params, key, plane, sigma) -> plane with the size of the level."""

    def __init__(self, config: NetworkConfig, frame: Frame, sizes: tuple[int, ...], bounds: tuple[float, ...]) -> None:
        self.held = (config, frame, sizes, bounds)  # type: ignore[assignment]

    def __call__(self, params: Params, key: Array, plane: Array, sigma: Array) -> Array:
        return by_level(*self.held, params, key, plane, sigma)  # type: ignore[call-arg, arg-type]


def prior_of(weights: Weights, sizes: tuple[int, ...], bounds: tuple[float, ...] = ()) -> Prior:
    """The prior of images that takes these sizes."""
    one = len(sizes) == 1
    static = (
        Static(weights.network, weights.frame, sizes[0])
        if one
        else ByLevel(weights.network, weights.frame, sizes, bounds)
    )
    return Prior(Partial(static, weights.params), weights.frame, channels=weights.network.image_channels)


def errors(args: argparse.Namespace) -> str:
    """Mean squared errors of denoised validation slices by size and level, and of --slices relative to the widest."""
    found, tested = (_found(args, numbers) for numbers in (HEAD_CT_VALIDATION, args.slices))
    lines = [f"| sigma | {' | '.join(f'P = {size}' for size in SIZES)} | best |", "|---" * (len(SIZES) + 2) + "|"]
    for sigma in SIGMAS:
        each = [float(np.mean(found[f"{size}/{sigma:g}"])) for size in SIZES]
        cells = " | ".join(f"{value:.3e}" for value in each)
        lines.append(f"| {sigma:g} | {cells} | {SIZES[int(np.argmin(each))]} |")
    lines += ["", f"Slices {', '.join(map(str, args.slices))}: error more than that of P = {SIZES[-1]} (%, 95 %)", ""]
    lines += [f"| sigma | {' | '.join(f'P = {size}' for size in SIZES[:-1])} |", "|---" * len(SIZES) + "|"]
    for sigma in SIGMAS:
        cells = " | ".join(interval(more(tested, size, sigma)).text() for size in SIZES[:-1])
        lines.append(f"| {sigma:g} | {cells} |")
    return "\n".join(lines) + "\n"


def _found(args: argparse.Namespace, numbers: Sequence[int]) -> dict[str, list[float]]:
    name = "_".join(map(str, numbers))
    return kept(args.out / f"errors_{name}.json", about_of(args), lambda: measured(load_weights(args.weights), numbers))


def measured(weights: Weights, numbers: Sequence[int]) -> dict[str, list[float]]:
    """SIZE/SIGMA -> mean squared error of each denoised slice."""
    truth, found = slices(numbers), {}
    for size in tqdm(SIZES, desc="errors", unit="size"):
        denoise = jax.jit(prior_of(weights, (size,)).denoise)
        for sigma in SIGMAS:
            each = []
            for number, image in zip(numbers, truth, strict=True):
                clean, values = weights.frame.pad(jnp.asarray(image)), []
                for draw in range(DRAWS):
                    noise_key, tiling_key = jax.random.split(jax.random.fold_in(jax.random.key(draw), number))
                    noisy = clean + sigma * jax.random.normal(noise_key, clean.shape)
                    image_of = weights.frame.crop(denoise(tiling_key, noisy, jnp.float32(sigma)))
                    values.append(float(jnp.mean(jnp.square(image_of - image))))
                each.append(float(np.mean(values)))
            found[f"{size}/{sigma:g}"] = each
    return found


def more(found: dict[str, list[float]], size: int, sigma: float) -> list[float]:
    """By how many percent the error of each slice is above that of the widest patch."""
    own, widest = (np.asarray(found[f"{p}/{sigma:g}"]) for p in (size, SIZES[-1]))
    return list(100 * (own / widest - 1))


def figure(args: argparse.Namespace) -> str:
    """The picture of the second table of `errors`."""
    tested, drawn = _found(args, args.slices), Figure(figsize=(3.6, 2.4), layout="constrained")
    axes = drawn.subplots()
    for colour, size in zip(COLOURS, SIZES[:-1], strict=False):
        each = [interval(more(tested, size, sigma)) for sigma in SIGMAS]
        ends = [abs((one.high or one.mean) - one.mean) for one in each]
        axes.errorbar(
            SIGMAS, [one.mean for one in each], ends, fmt="o-", color=colour, markersize=4, capsize=2,
            label=f"P = {size}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.axhline(0, color="grey", linewidth=0.5)
    dress(axes, "noise level", f"error more than that of P = {SIZES[-1]} (%)", legend=True)
    save_figure(args.out / "patch_size.png", drawn)
    return str(args.out / "patch_size.png")


def about_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the errors depend on, and the images too."""
    return {"weights": digest_of(args.weights), "draws": DRAWS}


def rule(found: dict[str, list[float]]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sizes by level and the bounds between them, half-way in ln sigma, from the table of errors."""
    best = [min(SIZES, key=lambda size: np.mean(found[f"{size}/{sigma:g}"])) for sigma in SIGMAS]
    sizes, bounds = [best[0]], []
    for low, high, before, after in zip(SIGMAS, SIGMAS[1:], best, best[1:], strict=False):
        if before != after:
            sizes.append(after)
            bounds.append(float(np.sqrt(low * high)))
    return tuple(sizes), tuple(bounds)


def images(args: argparse.Namespace) -> str:
    """PSNR and seconds of each size and of the rule."""
    sizes, bounds = rule(_found(args, HEAD_CT_VALIDATION))
    weights, truth = load_weights(args.weights), slices(args.slices)
    ways: dict[str, Prior] = {str(size): prior_of(weights, (size,)) for size in SIZES}
    ways["by level"] = prior_of(weights, sizes, bounds)
    angles = (np.arange(20) + 0.5) * np.pi / 20
    operator = ParallelBeam(image_shape=weights.frame.image_shape, angles=angles, detector_count=512)
    cells = [(s, w, i, seed) for seed in args.seeds for i in range(len(truth)) for s in SOLVERS for w in ways]
    found: dict[tuple[str, str, int, int], dict[str, Any]] = {}
    for solver, way, index, seed in tqdm(cells, desc="images", unit="image"):
        file = args.out / "cells" / f"{solver}_{way.replace(' ', '_')}_{args.slices[index]}_{seed}.json"
        about = about_of(args) | {"preset": preset(solver, "ct", EVALUATIONS).described()}
        about |= {"rule": [sizes, bounds]} if way == "by level" else {}
        run = functools.partial(_cell, solver, ways[way], operator, truth[index], seed)
        found[solver, way, index, seed] = kept(file, about, run)
    return table(found, sizes, bounds)


def _cell(solver: str, prior: Prior, operator: Any, image: np.ndarray, seed: int) -> dict[str, float]:
    plan = preset(solver, "ct", EVALUATIONS)
    y = operator(jnp.asarray(image[..., 0]))
    start = total_variation(y, operator, settings=tv_preset("ct")).image
    begin = time.perf_counter()
    options = plan.options() | {"start": start}
    found = reconstruct(jax.random.key(seed), y, operator, prior, solver=plan.settings, **options)
    score = float(psnr(np.clip(np.asarray(found.image), 0, 1), image))
    return {"psnr": score, "seconds": time.perf_counter() - begin}


def table(found: dict[tuple[str, str, int, int], dict[str, Any]], sizes: Sequence[int], bounds: Sequence[float]) -> str:
    """Means, and differences from P = 56 over images with 95% intervals."""
    lines = [
        f"By level: sizes {', '.join(map(str, sizes))}, bounds {', '.join(f'{b:.3g}' for b in bounds) or 'none'}.",
        "",
    ]
    lines += ["| solver | P | PSNR (dB) | less P = 56 (95%) | seconds |", "|---|---|---|---|---|"]
    numbers, seeds = sorted({cell[2] for cell in found}), sorted({cell[3] for cell in found})

    def values(solver: str, way: str, what: str) -> np.ndarray:
        return np.array([np.mean([found[solver, way, i, s][what] for s in seeds]) for i in numbers])

    for solver in SOLVERS:
        for way in (*map(str, SIZES), "by level"):
            own = values(solver, way, "psnr")
            against = interval(list(own - values(solver, str(SIZES[-1]), "psnr"))).text()
            median = np.median(values(solver, way, "seconds"))
            lines.append(f"| {solver} | {way} | {own.mean():.2f} | {against} | {median:.0f} |")
    return "\n".join(lines) + "\n"


def slices(chosen: Sequence[int]) -> np.ndarray:
    """Of the head CT, [n, H, W, 1]."""
    return np.asarray(read_images(HEAD_CT, memory=0).images[list(chosen)], np.float32)


if __name__ == "__main__":
    main()
