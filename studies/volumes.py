"""Forms of a prior along z on a held-out slab of the head CT: seven slices around a test slice, 20 parallel views.

    python -m studies.volumes                                       weights of images only, noiseless
    python -m studies.volumes --photons 1e5                         photon counts of a finer object, no inverse crime
    python -m studies.volumes --slab-weights runs/head_ct_slab/weights.safetensors
    python -m studies.volumes --only fbp tv slices_pnp volume_pnp   some of the rows

    row                 what it is
    fbp                 filtered backprojection of every slice
    tv_slices, tv       total variation, of every slice by itself and of the volume (differences along z in millimetres)
    slices_pnp, _dds    the prior of images, every slice by itself, slice i with the key fold_in(root, i)
    volume_...          the same prior, one data step for the volume: nothing along z; `_tv`: its variation along z;
                        `_anchored`: fresh noise correlated along z
    slab_...            the prior of slabs, likewise; `_skip`: slices of a slab `--skip` apart on every other level,
                        with weights that were trained with it (patches.skips); else these rows are left out

Settings of a method are the presets of a single slice, chosen on validation slices; so is `--along-tv`, of PnP-ADMM
with 15 evaluations. PSNR is pooled over the voxels of the slab; axial and coronal are means over planes (coronal: 7
pixels high, rows where there is more than air). SSIM has uniform windows of 7 x 7 pixels in axial planes, of 5 x 7 x 7
voxels (or as many slices as there are). `step` is the mean absolute difference of neighbouring slices, over the
truth's. Seconds are without compilation, which a run of two levels has done before; memory is what XLA plans for the
loop. A row that is finished has a file in --out: rerun the same command to resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import ndimage

from padis_jax.devices.memory import Memory
from padis_jax.errors import UserError, one_line_errors
from padis_jax.files import file_hash, write_bytes
from padis_jax.images import read_images
from padis_jax.keys import root_key
from padis_jax.measurements.simulate import honest_measurement, paper_measurement
from padis_jax.metrics import psnr, ssim
from padis_jax.operators import ParallelBeam
from padis_jax.shipped import locate
from padis_jax.solvers.presets import Kind, Plan, kind_of, preset, tv_preset
from padis_jax.solvers.reconstruct import reconstruct
from padis_jax.solvers.tv import total_variation
from padis_jax.solvers.volume_tv import for_volumes
from padis_jax.solvers.volumes import Along
from padis_jax.split import split_slices
from padis_jax.volume_weights import load_volume_prior
from padis_jax.weights import load_prior, load_weights
from studies.cells import kept

AIR = 0.05  # image value, above which a coronal plane holds something
SOLVERS = {"pnp": "pnp_admm", "dds": "dds"}
ROWS = (
    *("fbp", "tv_slices", "tv", "slices_pnp", "slices_dds"),
    *("volume_pnp", "volume_pnp_tv", "volume_dds", "volume_dds_tv", "volume_dds_anchored"),
    *("slab_pnp", "slab_pnp_tv", "slab_pnp_skip", "slab_dds", "slab_dds_tv", "slab_dds_anchored", "slab_dds_skip"),
)


class Slab(NamedTuple):
    """What is reconstructed: truth [D, H, W], y [D, views, bins], its mean noise, operators of a slice and of all."""

    truth: np.ndarray
    first: int
    y: Array
    noise: float
    plane: Any
    operator: Any
    kind: Kind
    depth_weight: float


@one_line_errors()
def main() -> None:
    """Reconstructs, scores, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, help="rows; all without it")
    parser.add_argument("--slice", type=int, default=41, help="test slice in the middle")
    parser.add_argument("--around", type=int, default=3, help="slices on either side")
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--photons", type=float, default=0.0, help="per ray; 0 for no noise")
    parser.add_argument("--evaluations", type=int, default=50, help="of the network, for every slice")
    parser.add_argument("--cg-steps", type=int, help="of conjugate gradients, in each data step; else the preset's")
    parser.add_argument("--along-tv", type=float, default=3e-6, help="Along.tv of the rows that end in _tv")
    parser.add_argument("--skip", type=int, default=3, help="distance of slices of the rows that end in _skip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", default="data/head_ct.npz", help="the volume")
    parser.add_argument("--weights", default="weights/head_ct.safetensors", help="of images")
    parser.add_argument("--slab-weights", default="", help="of slabs; their rows are left out without it")
    parser.add_argument("--out", type=Path, default=Path("results/volumes"))
    args = parser.parse_args()
    wanted = [name for name in args.only or ROWS if args.slab_weights or not name.startswith("slab")]
    if not wanted:
        raise UserError("--only names rows of slabs: give --slab-weights too")
    if not args.only and args.slab_weights:
        slabs = load_weights(args.slab_weights, volumes=True).slab
        known = slabs is not None and args.skip in slabs.skips
        wanted = [name for name in wanted if known or not name.endswith("_skip")]
    slab, rows = measured(args), {}
    for name in wanted:
        path = args.out / f"{args.slice}_{args.photons:g}" / f"{name}.json"
        once = functools.partial(run, name, args, slab, path.with_suffix(".npz"))
        rows[name] = kept(path, described(args, name), once)
    text = markdown(rows)
    write_bytes(args.out / f"{args.slice}_{args.photons:g}" / "results.md", text.encode())
    print(text)


def described(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a row depends on."""
    keys = ("slice", "around", "views", "photons", "seed")
    about: dict[str, Any] = {key: getattr(args, key) for key in keys} | {"volume": file_hash(args.path)}
    kind = kind_of("ct", counts=bool(args.photons))
    about |= {} if name == "fbp" else {"tv": dataclasses.asdict(tv_preset(kind))}  # all other rows start there
    if name.split("_")[0] in ("slices", "volume", "slab"):
        used = args.slab_weights if name.startswith("slab") else args.weights
        plan = plan_of(args, name.split("_")[1], kind)
        about |= {"plan": plan.described(), "weights": file_hash(locate(used)), "mirror": False}
    about |= {"skip": args.skip} if name.endswith("_skip") else {}
    return about | ({"along_tv": args.along_tv} if name.endswith("_tv") else {})


def plan_of(args: argparse.Namespace, solver: str, kind: Kind) -> Plan:
    """How the solver of a row runs."""
    given = {} if args.cg_steps is None else {"cg_steps": args.cg_steps}
    return preset(SOLVERS[solver], kind, args.evaluations, given=given)


def measured(args: argparse.Namespace) -> Slab:
    """The slab, simulated slice by slice."""
    images = read_images(args.path)
    count, first, depth = len(images.names), args.slice - args.around, 2 * args.around + 1
    if args.around < 1 or first < 0 or first + depth > count:
        raise UserError(f"--slice {args.slice} --around {args.around}: the volume has slices 0 to {count - 1}")
    if args.path == "data/head_ct.npz" and set(range(first, first + depth)) & set(split_slices(count).train):
        raise UserError(f"--slice {args.slice} --around {args.around}: the slab holds slices that are trained on")
    truth = np.asarray(images.images[list(range(first, first + depth))])[..., 0]
    angles = (np.arange(args.views) + 0.5) * np.pi / args.views
    operator = ParallelBeam(volume_shape=truth.shape, angles=angles, detector_count=2 * truth.shape[2])
    plane = operator.plane
    spacing = images.spacing or (1.0, 1.0, 1.0)
    if args.photons:
        simulate = jax.jit(lambda k, x: honest_measurement(k, x, plane, photons=args.photons, pixel_mm=spacing[1])[:2])
    else:
        simulate = jax.jit(lambda k, x: paper_measurement(k, x, plane)[:2])
    found = [simulate(slice_key(args, 0, first + k), jnp.asarray(x)) for k, x in enumerate(truth)]
    y, std = (jnp.stack(part) for part in zip(*found, strict=True))
    noise = float(jnp.sqrt(jnp.mean(jnp.square(std))))
    kind: Kind = "counts" if args.photons else "ct"
    return Slab(truth, first, y, noise, plane, operator, kind, spacing[1] / spacing[0])


def slice_key(args: argparse.Namespace, purpose: int, index: int) -> Array:
    """Of the measurement (0) or the reconstruction (1) of slice `index` of the volume."""
    return jax.random.fold_in(jax.random.fold_in(root_key(args.seed), index), purpose)


def run(name: str, args: argparse.Namespace, slab: Slab, path: Path) -> dict[str, float]:
    """Compiles, reconstructs, keeps the volume, scores it."""
    memory: list[Memory] = []
    call = method(name, args, slab, memory.append)
    jax.block_until_ready(call(True))
    start = time.perf_counter()
    volume = np.asarray(jax.block_until_ready(call(False)))
    seconds = time.perf_counter() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, volume=volume, first=slab.first)
    row = scores(volume, slab.truth) | {"seconds": seconds}
    return row | ({"memory_mb": memory[0].total / 1e6} if memory else {})


def method(
    name: str, args: argparse.Namespace, slab: Slab, on_memory: Callable[[Memory], None]
) -> Callable[[bool], Array]:
    """A row as a function, (whether only to compile) -> its volume."""
    if name == "fbp":
        return lambda short: slab.operator.start(slab.y)
    settings, depth = tv_preset(slab.kind), len(slab.truth)
    smooth = dataclasses.replace(for_volumes(settings), depth=slab.depth_weight)
    if name == "tv":
        return lambda short: total_variation(slab.y, slab.operator, settings=shortened(smooth, short)).image
    if name == "tv_slices":

        def smoothed(y: Array, short: bool) -> Array:
            return total_variation(y, slab.plane, settings=shortened(settings, short)).image

        return lambda short: jnp.stack([smoothed(y, short) for y in slab.y])
    form, solver, *along = name.split("_")
    plan = plan_of(args, solver, slab.kind)
    options = {"solver": plan.settings, **plan.options()}
    if slab.noise:
        options["noise_std"] = slab.noise
    if form == "slices":
        # not mirrored, as all figures of its page
        one = load_prior(args.weights, mirror=False)

        def each(k: int, short: bool) -> Array:
            key = slice_key(args, 1, slab.first + k)
            chosen = {**options, "start": shortened(settings, short), "on_memory": on_memory if k == 0 else None}
            chosen |= {"levels": 2} if short else {}
            return reconstruct(key, slab.y[k], slab.plane, one, **chosen).image[..., 0]

        return lambda short: jnp.stack([each(k, short) for k in range(1 if short else depth)])
    if form == "slab":
        skip = args.skip if along == ["skip"] else 1
        prior = load_volume_prior(args.slab_weights, depth=depth, first=slab.first, skip=skip, mirror=False)
    else:
        prior = load_volume_prior(args.weights, depth=depth, mirror=False)
    ties = {"tv": Along(tv=args.along_tv), "anchored": Along(noise="anchored")}
    options |= {"on_memory": on_memory, "along": ties.get(along[0]) if along else None}

    def whole(short: bool) -> Array:
        chosen = {**options, "start": shortened(smooth, short)} | ({"levels": 2} if short else {})
        return reconstruct(slice_key(args, 1, slab.first), slab.y, slab.operator, prior, **chosen).image

    return whole


def shortened(settings: Any, short: bool) -> Any:
    """Two iterations of the same program, if it is only to be compiled."""
    return dataclasses.replace(settings, iterations=2) if short else settings


def scores(volume: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of volumes [D, H, W] in image units, clipped to [0, 1] first."""
    x = np.clip(volume, 0, 1)
    rows = np.flatnonzero((truth > AIR).any(axis=(0, 2)))
    return {
        "psnr": float(psnr(x, truth)),
        "psnr_axial": float(np.mean([psnr(a, b) for a, b in zip(x, truth, strict=True)])),
        "psnr_coronal": float(np.mean([psnr(x[:, row], truth[:, row]) for row in rows])),
        "ssim_axial": float(np.mean([ssim(a, b) for a, b in zip(x, truth, strict=True)])),
        "ssim_volume": ssim_volume(x, truth),
        "step": float(np.abs(np.diff(x, axis=0)).mean() / np.abs(np.diff(truth, axis=0)).mean()),
    }


def ssim_volume(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM with a uniform window of 5 x 7 x 7 voxels and sample covariance; windows wholly inside count."""
    size = (min(5, len(x)), 7, 7)
    inside = tuple(slice(n // 2, side - (n - 1) // 2) for n, side in zip(size, x.shape, strict=True))

    def mean(a: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.uniform_filter(a, size))[inside]

    x, y, count = x.astype(float), y.astype(float), np.prod(size)
    mx, my, share = mean(x), mean(y), count / (count - 1)
    vx, vy, vxy = (share * (mean(a * b) - c * d) for a, b, c, d in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my)))
    found = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    return float(found.mean())


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """The table."""
    lines = ["| row | PSNR | axial | coronal | SSIM | 3-D | step | seconds | MB |", "|---" * 9 + "|"]
    for name, row in rows.items():
        decibels = " | ".join(f"{row[key]:.2f}" for key in ("psnr", "psnr_axial", "psnr_coronal"))
        shares = " | ".join(f"{row[key]:.3f}" for key in ("ssim_axial", "ssim_volume", "step"))
        memory = f"{row['memory_mb']:.0f}" if "memory_mb" in row else ""
        lines.append(f"| {name} | {decibels} | {shares} | {row['seconds']:.1f} | {memory} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
